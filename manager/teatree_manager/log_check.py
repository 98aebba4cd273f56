"""Is this the log that the model counts in? Asked at the start, and again after everything that was read from it."""

from __future__ import annotations

from datetime import datetime

from attrs import frozen

from teatree.contracts.errors import Code, OperatorError
from teatree.contracts.manifest import Manifest, StreamStamp
from teatree.messaging.bus import Bus
from teatree.messaging.jetstream import ERROR_NO_STREAM, ApiError
from teatree.messaging.log import LogReader
from teatree.messaging.streams import LogState, log_state


def stamp_of(state: LogState) -> StreamStamp:
    """Return what a manifest records of the log."""
    return StreamStamp(name=state.name, created=state.created)


@frozen
class LogCheck:
    """Compares the log with what a model has read of it."""

    bus: Bus
    model: str
    stamp: StreamStamp

    async def at(self, offset: int) -> None:
        """Check that the log is still the same and holds all beyond `offset`.

        Asked after a read: the stream that has our stamp now is the one that was read. Raises `log_replaced`,
        `log_behind` or `log_purged`.
        """
        check_state(await _state(self.bus, self.model), self.model, self.stamp, offset)


async def check_log(bus: Bus, model: str, newest: Manifest | None) -> LogState:
    """Return the log's state; raises `log_replaced`, `log_behind` or `log_purged` where the model must not go on.

    Raises `wrong_configuration` if its versions were published from a file: they know of no log.
    """
    if newest is not None and not newest.stream.name:
        raise OperatorError(
            Code.WRONG_CONFIGURATION,
            f"The versions of {model} were published from a DuckDB file: no requests can go on from them.",
            where=model,
            hint=f"Create a model under another name, as a fork: `teatree fork {model} NEW`.",
        )
    state = await _state(bus, model)
    if newest is not None and newest.offset:
        check_state(state, model, newest.stream, newest.offset)
        await _check_anchor(bus, model, newest.offset, newest.log_at)
    return state


async def _state(bus: Bus, model: str) -> LogState:
    try:
        return await log_state(bus)
    except ApiError as e:
        if e.number != ERROR_NO_STREAM:
            raise
        raise OperatorError(
            Code.LOG_REPLACED,
            f"The stream {bus.subjects.requests_stream}, in which {model} counts, is gone.",
            where=model,
            hint="Restore that stream.",
        ) from e


def check_state(state: LogState, model: str, stamp: StreamStamp, offset: int) -> None:
    """Check a log's state against the stamp and the offset that a model has."""
    if stamp != stamp_of(state):
        raise OperatorError(
            Code.LOG_REPLACED,
            f"The stream {state.name} was created at {state.created}; {model} counts in the one of {stamp.created}.",
            where=model,
            hint="Restore that stream; a model that is to begin again on this one must be loaded under another name.",
        )
    if state.last_seq < offset:
        raise OperatorError(
            Code.LOG_BEHIND,
            f"The stream {state.name} ends at {state.last_seq}; {model} holds requests up to {offset}.",
            where=model,
            hint="It was restored from an older copy, or lost its end. Restore a newer one.",
        )
    if state.is_lost_after(offset):
        raise OperatorError(
            Code.LOG_PURGED,
            f"The stream {state.name} begins at {state.first_seq}; {model} has read up to {offset}, and what lies"
            " between was not purged by the dispatcher.",
            where=model,
            hint="Requests may be lost. Restore the stream.",
        )


async def _check_anchor(bus: Bus, model: str, offset: int, log_at: datetime) -> None:
    """Compare the last request that the model holds with what the log has under its number, if it is still there."""
    found = await LogReader(bus, model).read(offset - 1, requests_max=1, bytes_max=1)
    if found.requests and found.requests[0].seq == offset and found.requests[0].at != log_at:
        raise OperatorError(
            Code.LOG_REPLACED,
            f"Request {offset} of the log is not the one that {model} holds.",
            where=model,
            hint="The stream was restored from an older copy and went on. Restore the one that the model counts in.",
        )
