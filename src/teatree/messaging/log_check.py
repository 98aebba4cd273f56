"""The log check: the last request that a model has applied must still be in its log (docs/decisions/0016)."""

from __future__ import annotations

from datetime import datetime

from attrs import frozen

from teatree.contracts.errors import Code, OperatorError
from teatree.contracts.formats.codec import dump_json, parse_json, structure, unstructure
from teatree.contracts.formats.manifest import StreamStamp
from teatree.contracts.formats.requests import LogPosition
from teatree.messaging.bus import Bus
from teatree.messaging.direct import last_messages
from teatree.messaging.jetstream import ERROR_NO_STREAM, ApiError
from teatree.messaging.log import READ_TIMEOUT_MS, message_of, position_at
from teatree.messaging.streams import LogState, log_state

RECOVERY_HINT = "Restore a newer copy of the stream. If there is none, `teatree log advance` resumes the model on it."


@frozen
class Advance:
    """A mark in the log that resumes a model after the log was truncated or restored."""

    seq: int
    """The last request that the model holds; the mark is valid for no other."""
    at: datetime
    go_on_after: int
    """The model's requests up to here that it has not applied were accepted again behind the mark."""
    first_seq: int
    """The log's first sequence: what was purged below is known to be lost."""

    @property
    def position(self) -> LogPosition:
        """The last request that the model holds."""
        return LogPosition(self.seq, self.at)

    def to_json(self) -> bytes:
        """Return the mark's body."""
        return dump_json(unstructure(self))


def stamp_of(state: LogState) -> StreamStamp:
    """Return what a manifest records of the log."""
    return StreamStamp(name=state.name, created=state.created)


async def state_for(bus: Bus, model: str) -> LogState:
    """Return the log's state; raises `log_replaced` if there is none."""
    try:
        return await log_state(bus)
    except ApiError as e:
        if e.number != ERROR_NO_STREAM:
            raise
        raise OperatorError(
            Code.LOG_REPLACED,
            f"The stream {bus.subjects.requests_stream}, from which {model} reads, does not exist.",
            where=model,
            hint="Restore that stream.",
        ) from e


def fault_of_state(state: LogState, model: str, stamp: StreamStamp, seq: int) -> OperatorError | None:
    """Return what the log's stamp and bounds show to be wrong for a model that holds requests up to `seq`."""
    if stamp != stamp_of(state):
        return OperatorError(
            Code.LOG_REPLACED,
            f"The stream {state.name} was created at {state.created}; {model} reads the one of {stamp.created}.",
            where=model,
            hint="Restore that stream; a model that is to begin again on this one must be loaded under another name."
            " `teatree log advance` helps only with a truncated stream.",
        )
    if state.last_seq < seq:
        return OperatorError(
            Code.LOG_BEHIND,
            f"The stream {state.name} ends at {state.last_seq}; {model} holds requests up to {seq}.",
            where=model,
            hint=f"It was restored from an older copy, or truncated. {RECOVERY_HINT}",
        )
    if state.is_lost_after(seq):
        return OperatorError(
            Code.LOG_PURGED,
            f"The stream {state.name} begins at {state.first_seq}; {model} has read up to {seq}, and what lies"
            " between was not purged by the dispatcher.",
            where=model,
            hint=f"Requests may be lost. {RECOVERY_HINT}",
        )
    return None


async def fault_of(
    bus: Bus, state: LogState, model: str, stamp: StreamStamp, position: LogPosition
) -> OperatorError | None:
    """Return why a model that holds all up to `position` must not continue in this log, None if it may.

    Its last request must have its number, unless the dispatcher has purged it and the log was not truncated since.
    """
    fault = fault_of_state(state, model, stamp, position.seq)
    if fault is not None or position.seq == 0:
        return fault
    found = await message_of(bus, position.seq)
    if found == (model, position) or (found is None and await _is_purged(bus, position.seq)):
        return None
    return OperatorError(
        Code.LOG_REPLACED,
        f"Message {position.seq} of the stream {state.name} is not the one that was there when {model} read it.",
        where=model,
        hint=f"The stream was restored from an older copy, or truncated, and has grown since. {RECOVERY_HINT}",
    )


async def _is_purged(bus: Bus, seq: int) -> bool:
    """Return whether the dispatcher has purged a message, in a log that was not truncated since.

    Checked again until it holds or nothing changes: the dispatcher may be purging now.
    """
    before = None
    while True:
        state = await log_state(bus)
        if seq >= state.purged_before or state.anchor is None or state.anchor == before:
            return False
        if await position_at(bus, state.anchor.seq) == state.anchor:
            return True
        before = state.anchor


async def read_advance(bus: Bus, model: str, position: LogPosition) -> Advance | None:
    """Return the mark that resumes a model from exactly this position, None without one."""
    subject = bus.subjects.advanced(model)
    found = await last_messages(bus, bus.subjects.requests_stream, [subject], timeout_ms=READ_TIMEOUT_MS)
    if not found:
        return None
    mark = structure(parse_json(found[-1].body, subject), Advance, subject)
    return mark if mark.position == position else None


async def advance_for(bus: Bus, state: LogState, model: str, position: LogPosition, fault: OperatorError) -> Advance:
    """Return the mark that resumes a model in spite of a fault; raises the fault if there is none."""
    mark = await read_advance(bus, model, position)
    if mark is None or (fault.code is Code.LOG_PURGED and state.first_seq > mark.first_seq):
        raise fault
    return mark
