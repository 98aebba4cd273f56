"""The two streams: created at start, or checked; a wrong existing configuration is never used in silence."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from attrs import frozen

from teatree.contracts.errors import Code, OperatorError
from teatree.contracts.formats.requests import LogPosition
from teatree.contracts.names import ANONYMOUS
from teatree.messaging.bus import Bus
from teatree.messaging.jetstream import ERROR_NO_STREAM, ERROR_STREAM_EXISTS, ApiError
from teatree.messaging.log import position_at

NANOSECONDS = 1_000_000_000
_DUPLICATE_WINDOW_NS = 100_000_000
"""The shortest the server takes. JetStream's window works per stream, not per model: within it, one sender's
`Nats-Msg-Id` would swallow another model's request. We remember ids ourselves."""
_PURGED_BEFORE = "teatree-purged-before"
_ANCHOR = "teatree-witness"
_SIZES = frozenset({"max_bytes", "max_msgs"})
_FREE = frozenset(
    {
        "description",
        "metadata",
        "num_replicas",
        "placement",
        "compression",
        "max_consumers",
        "consumer_limits",
        "deny_delete",
        "persist_mode",
    }
)
"""What an operator may choose for both streams: it changes neither what is stored nor what is kept. Servers before 2.12
do not know `persist_mode`, and a newer one refuses it for a stream with `allow_atomic`, which the log must have."""
_NOTHING: tuple[object, ...] = (None, False, 0, -1, "", [], {})
"""Values of members that are not set."""


@frozen
class LogState:
    """The state of the log, as its server reports it."""

    name: str
    created: str
    """When the stream was created: another stamp is another log."""
    first_seq: int
    last: LogPosition
    """The place of the newest message, which may have been deleted since."""
    messages: int
    subjects: int
    """How many subjects they have: one for each function and sender of a model."""
    size_bytes: int
    size_bytes_max: int
    """-1: no limit."""
    purged_before: int
    """Below this sequence the dispatcher has purged what was applied; above it nothing should have been purged."""
    anchor: LogPosition | None
    """A message that the dispatcher left when it purged last: while it is there, the log was not truncated since."""
    first_at: str
    """When the oldest message was stored: RFC 3339."""
    now: str
    """The server's clock: RFC 3339."""

    @property
    def last_seq(self) -> int:
        """The sequence of the newest message."""
        return self.last.seq

    def is_lost_after(self, offset: int) -> bool:
        """Whether requests beyond `offset` may be lost: purged, but not by the dispatcher.

        The first sequence alone is not enough: it passes an idle model's offset when others' requests are purged.
        """
        return self.first_seq > max(offset + 1, self.purged_before)


async def ensure_streams(bus: Bus, *, log_bytes_max: int, notices_age_s: float, notices_max: int) -> None:
    """Create the log and the stream of notices, or check the existing ones; raises `wrong_configuration`.

    Sizes and ages are for streams that are created now; those of existing ones are left as their operator chose them.
    """
    await _ensure(bus, log_config(bus, log_bytes_max), _SIZES)
    await _list_notices(bus)
    await _ensure(bus, notices_config(bus, notices_age_s, notices_max), _SIZES | {"max_age", "duplicate_window"})


def log_config(bus: Bus, size_bytes_max: int) -> dict[str, Any]:
    """Return the configuration of the log: nothing unapplied is ever dropped."""
    subjects = bus.subjects
    return {
        "name": subjects.requests_stream,
        "subjects": [subjects.requests_by_sender, subjects.requests_without_sender],
        "subject_transform": {
            "src": subjects.requests_without_sender,
            "dest": f"{subjects.prefix}.request.{{{{wildcard(1)}}}}.{{{{wildcard(2)}}}}.{ANONYMOUS}",
        },
        "retention": "limits",
        "storage": "file",
        "discard": "new",
        "discard_new_per_subject": False,
        "max_bytes": size_bytes_max,
        "max_age": 0,
        "max_msgs": -1,
        "max_msgs_per_subject": -1,
        "allow_atomic": True,
        "allow_direct": True,
        "allow_rollup_hdrs": False,
        "duplicate_window": _DUPLICATE_WINDOW_NS,
        "republish": {
            "src": subjects.requests_by_sender,
            "dest": f"{subjects.prefix}.wake.{{{{wildcard(1)}}}}",
            "headers_only": True,
        },
    }


def notices_config(bus: Bus, age_s: float, count_max: int) -> dict[str, Any]:
    """Return the configuration of the notices: bounded, since every subject costs the server memory.

    It lists the subjects: those of live queries are kept nowhere (docs/decisions/0038). The others can be published
    again from the chain, so the stream need not sync every one of them.
    """
    subjects = bus.subjects
    return {
        "name": subjects.notices_stream,
        "subjects": subjects.notices_kept,
        "retention": "limits",
        "storage": "file",
        "discard": "old",
        "max_age": round(age_s * NANOSECONDS),
        "max_msgs": count_max,
        "max_bytes": -1,
        "allow_direct": True,
        "allow_atomic": False,
        "persist_mode": "async",
        "duplicate_window": _DUPLICATE_WINDOW_NS,
    }


async def log_state(bus: Bus) -> LogState:
    """Return the log's stamp and bounds; raises `unavailable` or an error that names the missing stream."""
    return _read_state(await bus.js(f"STREAM.INFO.{bus.subjects.requests_stream}"))


def _read_state(info: dict[str, Any]) -> LogState:
    state, config = info["state"], info["config"]
    metadata = config.get("metadata") or {}
    return LogState(
        name=config["name"],
        created=info["created"],
        first_seq=int(state["first_seq"]),
        last=LogPosition(int(state["last_seq"]), datetime.fromisoformat(state["last_ts"])),
        messages=int(state["messages"]),
        subjects=int(state.get("num_subjects", 0)),
        size_bytes=int(state["bytes"]),
        size_bytes_max=int(config.get("max_bytes", -1)),
        purged_before=int(metadata.get(_PURGED_BEFORE, 0)),
        anchor=_read_anchor(metadata.get(_ANCHOR)),
        first_at=state["first_ts"],
        now=info["ts"],
    )


def _read_anchor(text: str | None) -> LogPosition | None:
    if text is None:
        return None
    seq, at = text.split(" ", 1)
    return LogPosition(int(seq), datetime.fromisoformat(at))


async def purge_log(bus: Bus, before: Mapping[str, int], anchor: LogPosition) -> int:
    """Purge each model's requests below its sequence number in `before`; return how many requests that were.

    How far, and an anchor that stays, are written into the log's metadata first: so managers can distinguish our purges
    from others', and from a truncated log.
    """
    name = bus.subjects.requests_stream
    highest = max(before.values(), default=0)
    await _record_purge(bus, highest, anchor)
    purged = 0
    for model, seq in before.items():
        answer = await bus.js(f"STREAM.PURGE.{name}", {"filter": bus.subjects.request_filter(model), "seq": seq})
        purged += int(answer["purged"])
    await bus.js(f"STREAM.PURGE.{name}", {"filter": bus.subjects.padding, "seq": highest})
    return purged


async def _record_purge(bus: Bus, before: int, anchor: LogPosition) -> None:
    """Write both, and read them back until they are there: another dispatcher may be writing too.

    Neither goes back, except for an anchor that the log has lost: it proves nothing about purges from now on.
    """
    name = bus.subjects.requests_stream
    while True:
        info = await bus.js(f"STREAM.INFO.{name}")
        found = _read_state(info)
        newest = anchor
        if found.anchor is not None and found.anchor.seq > anchor.seq:
            newest = found.anchor if await position_at(bus, found.anchor.seq) == found.anchor else anchor
        if found.purged_before >= before and found.anchor == newest:
            return
        config = info["config"]
        metadata = {
            **(config.get("metadata") or {}),
            _PURGED_BEFORE: str(max(before, found.purged_before)),
            _ANCHOR: f"{newest.seq} {newest.at.isoformat()}",
        }
        await bus.js(f"STREAM.UPDATE.{name}", {**config, "metadata": metadata})


async def _list_notices(bus: Bus) -> None:
    """Give a stream of notices that takes everything below `notify` the subjects that it has to take."""
    name = bus.subjects.notices_stream
    try:
        config = (await bus.js(f"STREAM.INFO.{name}"))["config"]
    except ApiError as e:
        if e.number != ERROR_NO_STREAM:
            raise
        return
    if config["subjects"] == [bus.subjects.notices_all]:
        await bus.js(f"STREAM.UPDATE.{name}", {**config, "subjects": bus.subjects.notices_kept})


async def _ensure(bus: Bus, wanted: dict[str, Any], sizes: frozenset[str]) -> None:
    name = wanted["name"]
    try:
        info = await bus.js(f"STREAM.INFO.{name}")
    except ApiError as e:
        if e.number != ERROR_NO_STREAM:
            raise
        try:
            info = await bus.js(f"STREAM.CREATE.{name}", wanted)
        except ApiError as e:
            if e.number != ERROR_STREAM_EXISTS:
                raise
            info = await bus.js(f"STREAM.INFO.{name}")  # another process was quicker, with other sizes
    faults = differences(wanted, info["config"], sizes | _FREE)
    if faults:
        raise OperatorError(
            Code.WRONG_CONFIGURATION,
            f"The stream {name} is not configured as Teatree needs it: {'; '.join(faults)}.",
            where=f"stream {name}",
            hint=f"Change it with `nats stream edit {name}`, or choose another TEATREE_PREFIX.",
        )


def differences(wanted: dict[str, Any], found: dict[str, Any], free: frozenset[str] = frozenset()) -> list[str]:
    """Return what to change, member by member; members in `free` may have any value.

    A member that is not in `wanted` must not be set: it can drop, rewrite or add messages unexpectedly.
    The server leaves members out that have their default.
    """
    faults = []
    for member, value in wanted.items():
        if member in free:
            continue
        actual = found.get(member, _default(value))
        if isinstance(value, dict) and isinstance(actual, dict):
            actual = {key: actual.get(key, _default(part)) for key, part in value.items()}
        if actual != value:
            faults.append(f"{member} is {actual!r}, not {value!r}")
    faults += [
        f"{member} is {actual!r}, which must not be set"
        for member, actual in found.items()
        if member not in wanted and member not in free and actual not in _NOTHING
    ]
    return faults


def _default(value: Any) -> Any:
    return {bool: False, int: 0, str: "", list: []}.get(type(value))
