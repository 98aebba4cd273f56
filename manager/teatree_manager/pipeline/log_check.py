"""Checking that the log is still the model's: at the start, after each read, and closely after a lost connection."""

from __future__ import annotations

from teatree.contracts.errors import Code, OperatorError
from teatree.contracts.formats.manifest import Manifest, StreamStamp
from teatree.contracts.formats.requests import LogPosition
from teatree.messaging.bus import Bus
from teatree.messaging.log_check import (
    Advance,
    advance_for,
    fault_of,
    fault_of_state,
    stamp_of,
    state_for,
)
from teatree.messaging.streams import LogState


class LogCheck:
    """Compares the log with what a model has read of it.

    A log is truncated or restored only while its server is down or its stream does not exist. So the last message that
    was read is checked again when the connection was lost or the log has become shorter, not with every read.
    """

    def __init__(self, bus: Bus, model: str, stamp: StreamStamp, advance: Advance | None) -> None:
        self.stamp = stamp
        self._bus = bus
        self._model = model
        self._advance = advance
        self._losses = -1
        self._last_seq = 0

    @classmethod
    async def begin(cls, bus: Bus, model: str, newest: Manifest | None) -> LogCheck:
        """Check the log that a model is to continue with from its newest version.

        Raises `log_replaced`, `log_behind` or `log_purged` where it must not; `wrong_configuration` if its versions
        were published from a file: they belong to no log.
        """
        if newest is not None and not newest.stream.name:
            raise OperatorError(
                Code.WRONG_CONFIGURATION,
                f"The versions of {model} were published from a DuckDB file: no request can be applied to them.",
                where=model,
                hint=f"Create a model under another name, as a fork: `teatree fork {model} NEW`.",
            )
        state = await state_for(bus, model)
        advance = None
        if newest is not None and newest.offset:
            fault = await fault_of(bus, state, model, newest.stream, newest.position)
            if fault is not None:
                advance = await advance_for(bus, state, model, newest.position, fault)
        return cls(bus, model, stamp_of(state), advance)

    @property
    def losses(self) -> int:
        """Times that the connection was lost: a read before and a check after it may be of two different logs."""
        return self._bus.losses

    def begin_after(self, position: LogPosition) -> int:
        """Return the sequence after which a model reads that has applied all up to `position`."""
        advance = self._advance
        return advance.go_on_after if advance is not None and advance.position == position else position.seq

    async def at(self, position: LogPosition) -> None:
        """Check that the log is still the same and holds all beyond `position`, the last request that was read.

        Called after a read: the stream that has our stamp now is the one that was read. Raises `log_replaced`,
        `log_behind` or `log_purged`.
        """
        losses = self._bus.losses
        state = await state_for(self._bus, self._model)
        fault = fault_of_state(state, self._model, self.stamp, position.seq)
        if fault is None and (losses != self._losses or state.last_seq < self._last_seq):
            fault = await fault_of(self._bus, state, self._model, self.stamp, position)
        if fault is not None:
            await self._excuse(state, position, fault)
        self._losses, self._last_seq = losses, state.last_seq

    async def _excuse(self, state: LogState, position: LogPosition, fault: OperatorError) -> None:
        """Raise a fault unless this manager began with the mark that permits it; the next one uses a later mark."""
        if await advance_for(self._bus, state, self._model, position, fault) != self._advance:
            raise fault
