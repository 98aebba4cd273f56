"""Faults of the log: why a model cannot continue in it from its newest version, as its manager would find."""

from __future__ import annotations

from teatree.contracts.errors import OperatorError
from teatree.contracts.formats.manifest import StreamStamp
from teatree.contracts.formats.requests import LogPosition
from teatree.messaging.bus import Bus
from teatree.messaging.log_check import fault_of, read_advance
from teatree.messaging.streams import log_state
from teatree_dispatcher.placement import PublishedState


async def log_fault(bus: Bus, model: str, known: PublishedState) -> OperatorError | None:
    """Return why a model cannot continue in this log from its newest version, None if it can."""
    if known.log_at is None or known.offset == 0:
        return None
    state = await log_state(bus)
    position = LogPosition(known.offset, known.log_at)
    fault = await fault_of(bus, state, model, StreamStamp(state.name, known.log_created or ""), position)
    if fault is None:
        return None
    mark = await read_advance(bus, model, position)
    # With a mark that passes requests over the offset is invalid until the model has continued after the mark.
    return fault if mark is None or mark.go_on_after > position.seq else None
