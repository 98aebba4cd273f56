"""The dispatcher's view of the log: how far it was read, and the last requests of each model in the registry."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from structlog.typing import FilteringBoundLogger

from teatree.contracts.errors import Code
from teatree.messaging.bus import Bus
from teatree.messaging.last_requests import SUBJECTS_MAX, last_requests, last_requests_of, last_sequences
from teatree.messaging.log import position_at
from teatree.messaging.streams import LogState, log_state
from teatree_dispatcher.log_index import LogIndex, read_log_index
from teatree_dispatcher.model_registry import LogPlace, ModelRegistry

INDEX_EVERY = 50_000
"""Messages of the log after which the index is written again: a restarted dispatcher reads no more than these, and
those that came while there was none."""


class LogView:
    """Reads from the log what is new, into a registry; all of it can be read again."""

    def __init__(
        self,
        bus: Bus,
        registry: ModelRegistry,
        drops: Sequence[str],
        log: FilteringBoundLogger,
        index: Path | None = None,
    ) -> None:
        """Read nothing yet; `drops` are the functions that end an incarnation, `index` is the file of the index."""
        self._bus = bus
        self._drops = drops
        self._log = log
        self._index = index
        self._indexed_seq = 0
        self._registry = registry
        self.place = LogPlace(losses=bus.losses)

    async def read(self) -> None:
        """Take what is new into the registry; begin anew if it is another log, or was truncated."""
        losses = self._bus.losses
        state = await log_state(self._bus)
        if self.place.created is None:
            await self._begin_with_index(state)
        elif state.created != self.place.created or state.last_seq < self.place.last_seq:
            self._begin(state)
        elif losses != self.place.losses:
            await self._doubt(state)
        found = await last_requests(self._bus, state, self._drops, after=self.place.last_seq)
        self._registry.learn(found.requests, found.of_functions)
        self.place = LogPlace(state.created, state.last, losses)
        await self._write_index(state)

    async def read_models(self, models: Iterable[str]) -> None:
        """Take the last request of each of these models into the registry."""
        self._registry.learn(await last_sequences(self._bus, models), {})

    async def _doubt(self, state: LogState) -> None:
        """Read again what the log may have lost with the connection: it may have been truncated, and grown again.

        While the last message of the last read is still there, so is all before it.
        """
        place = self.place
        if place.last is None or await position_at(self._bus, place.last.seq) == place.last:
            found = await last_requests_of(self._bus, self._registry.beyond(place.last_seq), self._drops)
            self._registry.doubt(place.last_seq)  # not before: a read that fails is repeated
            self._registry.learn(found.requests, found.of_functions)
        else:
            self._registry.doubt()
            self.place = LogPlace(state.created)

    def _begin(self, state: LogState) -> None:
        """Begin anew with another log; the backoff of managers is kept."""
        self._log.error("the log was replaced", code=str(Code.LOG_REPLACED), now=state.created, was=self.place.created)
        self._registry.begin()
        self.place = LogPlace(state.created)
        self._indexed_seq = 0

    async def _begin_with_index(self, state: LogState) -> None:
        """Begin where the index ends, if it is one of this log; few subjects are read without it as quickly."""
        self.place = LogPlace(state.created)
        if self._index is None or state.subjects <= SUBJECTS_MAX:
            return
        found = await asyncio.to_thread(read_log_index, self._index)
        if found is None or found.created != state.created or found.last.seq > state.last_seq:
            return
        if await position_at(self._bus, found.last.seq) != found.last:
            return
        ahead = {name for last in (found.requests, found.drops) for name, seq in last.items() if seq > found.last.seq}
        again = await last_requests_of(self._bus, ahead, self._drops)  # the log may have lost what it had read ahead
        self._registry.learn(_without(found.requests, ahead) | again.requests, {})
        self._registry.learn({}, _without(found.drops, ahead) | again.of_functions)
        self.place = LogPlace(state.created, found.last)
        self._indexed_seq = found.last.seq
        self._log.info("the log is read from where its index ends", seq=found.last.seq, log_seq=state.last_seq)

    async def _write_index(self, state: LogState) -> None:
        if self._index is None or state.subjects <= SUBJECTS_MAX or state.last_seq < self._indexed_seq + INDEX_EVERY:
            return
        requests, drops = self._registry.last_requests()
        held = {name: seq for name, seq in requests.items() if seq >= state.first_seq}
        index = LogIndex(state.created, state.last, held, {name: drops[name] for name in held.keys() & drops.keys()})
        if not await asyncio.to_thread(index.write, self._index):
            self._log.warning("the index of the log could not be written", file=str(self._index))
        self._indexed_seq = state.last_seq


def _without(sequences: Mapping[str, int], names: Collection[str]) -> dict[str, int]:
    return {name: seq for name, seq in sequences.items() if name not in names}
