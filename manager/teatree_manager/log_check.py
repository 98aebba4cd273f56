"""Is this the log that the model counts in? Asked before the first request is read."""

from __future__ import annotations

from teatree.contracts.errors import Code, OperatorError
from teatree.contracts.manifest import Manifest, StreamStamp
from teatree.messaging.bus import Bus
from teatree.messaging.log import LogReader
from teatree.messaging.streams import LogState, log_state


def stamp_of(state: LogState) -> StreamStamp:
    """Return what a manifest records of the log."""
    return StreamStamp(name=state.name, created=state.created)


async def check_log(bus: Bus, newest: Manifest | None) -> LogState:
    """Return the log's state; raises `log_replaced`, `log_behind` or `log_purged` where the model must not go on."""
    state = await log_state(bus)
    if newest is None or not newest.offset:
        return state
    if newest.stream != stamp_of(state):
        raise OperatorError(
            Code.LOG_REPLACED,
            f"The stream {state.name} was created at {state.created}; version {newest.version} of {newest.model} counts"
            f" in the one of {newest.stream.created}.",
            where=newest.model,
            hint="Restore that stream; a model that is to begin again on this one must be loaded under another name.",
        )
    if state.last_seq < newest.offset:
        raise OperatorError(
            Code.LOG_BEHIND,
            f"The stream {state.name} ends at {state.last_seq}; version {newest.version} of {newest.model} holds"
            f" requests up to {newest.offset}.",
            where=newest.model,
            hint="It was restored from an older copy, or lost its end. Restore a newer one.",
        )
    if state.is_lost_after(newest.offset):
        raise OperatorError(
            Code.LOG_PURGED,
            f"The stream {state.name} begins at {state.first_seq}; {newest.model} has read up to {newest.offset}, and"
            " what lies between was not purged by the dispatcher.",
            where=newest.model,
            hint="Requests may be lost. Restore the stream.",
        )
    await _check_anchor(bus, newest)
    return state


async def _check_anchor(bus: Bus, newest: Manifest) -> None:
    """Compare the last request that the model holds with what the log has under its number, if it is still there."""
    found = await LogReader(bus, newest.model).read(newest.offset - 1, requests_max=1, bytes_max=1)
    if found.requests and found.requests[0].seq == newest.offset and found.requests[0].at != newest.log_at:
        raise OperatorError(
            Code.LOG_REPLACED,
            f"Request {newest.offset} of the log is not the one that version {newest.version} of {newest.model} holds.",
            where=newest.model,
            hint="The stream was restored from an older copy and went on. Restore the one that the model counts in.",
        )
