"""The dispatcher's view of the log: how far it was read, and the last requests of each model in the registry."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from structlog.typing import FilteringBoundLogger

from teatree.contracts.errors import Code
from teatree.messaging.bus import Bus
from teatree.messaging.last_requests import last_requests, last_requests_of, last_sequences
from teatree.messaging.log import position_at
from teatree.messaging.streams import LogState, log_state
from teatree_dispatcher.model_registry import LogPlace, ModelRegistry


class LogView:
    """Reads from the log what is new, into a registry; all of it can be read again."""

    def __init__(self, bus: Bus, registry: ModelRegistry, drops: Sequence[str], log: FilteringBoundLogger) -> None:
        """Read nothing yet; `drops` are the functions that end an incarnation."""
        self._bus = bus
        self._drops = drops
        self._log = log
        self._registry = registry
        self.place = LogPlace(losses=bus.losses)

    async def read(self) -> None:
        """Take what is new into the registry; begin anew if it is another log, or was truncated."""
        losses = self._bus.losses
        state = await log_state(self._bus)
        if state.created != self.place.created or state.last_seq < self.place.last_seq:
            self._begin(state)
        elif losses != self.place.losses:
            await self._doubt(state)
        found = await last_requests(self._bus, state, self._drops, after=self.place.last_seq)
        self._registry.learn(found.requests, found.of_functions)
        self.place = LogPlace(state.created, state.last, losses)

    async def read_models(self, models: Iterable[str]) -> None:
        """Take the last request of each of these models into the registry."""
        self._registry.learn(await last_sequences(self._bus, models), {})

    async def _doubt(self, state: LogState) -> None:
        """Read again what the log may have lost with the connection: it may have been truncated, and grown again.

        While the last message of the last read is still there, so is all before it.
        """
        place = self.place
        if place.last is None or await position_at(self._bus, place.last.seq) == place.last:
            doubted = self._registry.doubt(place.last_seq)
            found = await last_requests_of(self._bus, doubted, self._drops)
            self._registry.learn(found.requests, found.of_functions)
        else:
            self._registry.doubt()
            self.place = LogPlace(state.created)

    def _begin(self, state: LogState) -> None:
        """Begin anew with another log; the backoff of managers is kept."""
        if self.place.created is not None:
            self._log.error(
                "the log was replaced", code=str(Code.LOG_REPLACED), now=state.created, was=self.place.created
            )
        self._registry.begin()
        self.place = LogPlace(state.created)
