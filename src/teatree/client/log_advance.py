"""Resuming models after the request log was truncated or restored: `teatree log advance` (docs/decisions/0016).

Every step can be interrupted and repeated: padding messages are published only while the log is too short, requests
that are accepted again keep their ids, and a model resumes only after its mark, which is published last.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from attrs import evolve, frozen

from teatree.contracts.errors import Code, OperatorError, RequestError
from teatree.contracts.formats.codec import parse_utc, utc_text
from teatree.contracts.formats.manifest import Manifest, ModelState
from teatree.contracts.formats.requests import HEADER_NATS_ID, HEADER_REQUEST_ID
from teatree.contracts.probe import Probe
from teatree.messaging.batches import BATCH_MESSAGES_MAX, LogMessage, publish_batch
from teatree.messaging.bus import Bus
from teatree.messaging.direct import StoredMessage
from teatree.messaging.headers import storable_headers
from teatree.messaging.log import LogReader
from teatree.messaging.log_check import Advance, advance_for, fault_of, stamp_of
from teatree.messaging.streams import LogState, log_state
from teatree.storage.folders import model_chains
from teatree.storage.objects.base import ObjectStore

COPY_BYTES_MAX = 8_000_000
"""Bytes of requests that are read and accepted again at once."""


@frozen
class StalledModel:
    """A model that must not read further in the log."""

    model: str
    code: Code
    """`log_behind`, `log_replaced` or `log_purged`."""
    offset: int
    """The sequence of the last request that it applied."""
    message: str
    again: int = 0
    """Requests accepted under sequences that it has passed, or after those, that are now accepted again."""
    unnamed: int = 0
    """Those of them that had no request id, and got one."""


@frozen
class AdvanceReport:
    """What is wrong with a log, or what was repaired."""

    stream: str
    last_seq_before: int
    last_seq: int
    models: int
    """Models that were checked."""
    padding_messages: int
    stalled_models: tuple[StalledModel, ...]
    elsewhere: tuple[str, ...]
    """Models whose offsets are those of another stream, which this command cannot resume."""


async def advance_log(bus: Bus, store: ObjectStore, probe: Probe, *, dry_run: bool = False) -> AdvanceReport:
    """Resume every model that stopped because the log was truncated or restored from an older copy.

    Nothing in the log is deleted. Raises `wrong_configuration` if the server's clock was set back, since requests
    accepted after the loss are found by timestamp.
    """
    newest = await asyncio.to_thread(_newest, store, bus.prefix)
    state = before = await log_state(bus)  # after the manifests: managers may be at work
    ours = [m for m in newest if m.stream == stamp_of(state)]
    found = [(m, fault) for m in ours if (fault := await _fault(bus, state, m)) is not None]
    stalled_models = [StalledModel(m.model, fault.code, m.offset, fault.message) for m, fault in found]
    padding_messages = 0
    if found and not dry_run:
        _check_clock(state, [m for m, _ in found])
        with probe.step("log.advance.fill"):
            padding_messages = await _pad(bus, max(m.offset for m, _ in found), state.last_seq)
        for i, (manifest, _) in enumerate(found):
            stalled_models[i] = await _advance(bus, manifest, stalled_models[i], probe)
        state = await log_state(bus)
    return AdvanceReport(
        state.name,
        before.last_seq,
        state.last_seq,
        len(ours),
        padding_messages,
        tuple(stalled_models),
        tuple(m.model for m in newest if m.stream != stamp_of(state)),
    )


def _newest(store: ObjectStore, prefix: str) -> list[Manifest]:
    """Return the newest manifest of every model that has applied a log."""
    manifests = (chain.newest() for chain in model_chains(store, prefix))
    return [m for m in manifests if m is not None and m.stream.name and m.offset]


async def _fault(bus: Bus, state: LogState, manifest: Manifest) -> OperatorError | None:
    fault = await fault_of(bus, state, manifest.model, manifest.stream, manifest.position)
    if fault is None:
        return None
    try:
        await advance_for(bus, state, manifest.model, manifest.position, fault)
    except OperatorError as e:
        return e
    return None


def _check_clock(state: LogState, manifests: list[Manifest]) -> None:
    latest = max(manifests, key=lambda m: m.log_at)
    if parse_utc(state.now) <= latest.log_at:
        raise OperatorError(
            Code.WRONG_CONFIGURATION,
            f"The clock of NATS is at {state.now}; {latest.model} has applied a request that was accepted at"
            f" {utc_text(latest.log_at)}.",
            where="the clock of the NATS server",
            hint="Set it, then run the command again: requests accepted after the loss are found by timestamp.",
        )


async def _pad(bus: Bus, wanted_seq: int, last_seq: int) -> int:
    """Publish padding messages until the log is as long as it was for the models; return how many."""
    padding_messages = 0
    while last_seq < wanted_seq:
        batch: list[LogMessage] = [(bus.subjects.padding, b"", {})] * min(wanted_seq - last_seq, BATCH_MESSAGES_MAX)
        last_seq = await publish_batch(bus, batch)
        padding_messages += len(batch)
    return padding_messages


async def _advance(bus: Bus, manifest: Manifest, stalled: StalledModel, probe: Probe) -> StalledModel:
    """Publish again, at the end of the log, the requests that the model would skip; then publish its mark."""
    state = await log_state(bus)
    continue_after = manifest.offset
    async for portion in _overtaken(bus, manifest, state.last_seq):
        named = [_copy(message) for message in portion]
        with probe.step("log.advance.copy", model=manifest.model):
            await _publish(bus, [message for message, _ in named])
        stalled = evolve(
            stalled, again=stalled.again + len(named), unnamed=stalled.unnamed + sum(is_new for _, is_new in named)
        )
        if manifest.state is ModelState.ACTIVE:
            continue_after = state.last_seq
    mark = Advance(manifest.offset, manifest.log_at, continue_after, state.first_seq)
    with probe.step("log.advance.mark", model=manifest.model):
        await bus.publish_log(bus.subjects.advanced(manifest.model), mark.to_json())
    return stalled


async def _overtaken(bus: Bus, manifest: Manifest, last_seq: int) -> AsyncIterator[list[StoredMessage]]:
    """Yield a model's requests accepted since its last one, if any of them has a sequence that it has passed.

    Those behind it are included, so that all keep their order; but not for a model that is not active: the dispatcher
    answers its requests from its offset on.
    """
    up_to = last_seq if manifest.state is ModelState.ACTIVE else manifest.offset
    reader = LogReader(bus, manifest.model)
    any_overtaken = False
    pages = reader.read_since(utc_text(manifest.log_at), requests_max=BATCH_MESSAGES_MAX, bytes_max=COPY_BYTES_MAX)
    async for page in pages:
        since = [m for m in page if m.position.at > manifest.log_at and m.seq <= up_to]
        any_overtaken = any_overtaken or bool(since and since[0].seq <= manifest.offset)
        if not any_overtaken and since:
            return
        if since:
            yield since
        if page[-1].seq >= up_to:
            return


def _copy(message: StoredMessage) -> tuple[LogMessage, bool]:
    """Return a request as it is accepted again, and whether it had no id: then it gets a deterministic one."""
    raw_id = message.headers.get(HEADER_REQUEST_ID) or message.headers.get(HEADER_NATS_ID)
    stamp = "".join(c for c in message.at if c.isdigit())
    headers = storable_headers({**message.headers, HEADER_REQUEST_ID: raw_id or f"again-{message.seq}-{stamp}"})
    return (message.subject, message.body, headers), not raw_id


async def _publish(bus: Bus, messages: list[LogMessage]) -> None:
    try:
        await publish_batch(bus, messages)
    except RequestError:  # with a batch's headers one of them is too large; nothing was published
        for subject, body, headers in messages:
            await bus.publish_log(subject, body, headers)
