"""The follower that records a model's condition in the catalog: why requests wait, and what is damaged in the store."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Mapping

from typing_extensions import override

from teatree.contracts.errors import OperatorError, RetryError
from teatree.contracts.retry import Backoff
from teatree.storage.catalog import Catalog
from teatree.storage.chain import Chain
from teatree_manager.follower import Follower

LOOK_MS = 500
"""Milliseconds between checks: a shorter wait need not be recorded."""
DAMAGED_VERSIONS_MAX = 100
"""Damaged versions that are recorded: bounds the row."""


class ConditionFollower(Follower):
    """Writes a changed condition into the catalog; nothing waits for it.

    Damage that an earlier manager recorded is not lost: it is read at the start and passed to `remember`.
    """

    name = "condition"

    def __init__(
        self,
        catalog: Catalog,
        chain: Chain,
        remember: Callable[[Mapping[int, str]], None],
        damage: Callable[[], Mapping[int, str]],
    ) -> None:
        super().__init__()
        self._catalog = catalog
        self._chain = chain
        self._remember = remember
        self._damage_now = damage
        self._recorded_waits: str | None = None
        self._damage: Mapping[int, str] = {}
        self._has_read = False
        self._one_at_a_time = asyncio.Lock()
        self.waits: Callable[[], str | None] = lambda: None
        """Returns why requests wait."""

    @override
    async def run(self) -> None:
        backoff = Backoff()
        while True:
            try:
                await self.work()
            except (RetryError, OperatorError) as e:  # a catalog that is unavailable or locked must not stop its model
                self.error = str(e)
                await backoff.pause(e)
            else:
                self.error = None
                backoff.reset()
            await asyncio.sleep(LOOK_MS / 1000)

    @override
    async def work(self) -> None:
        async with self._one_at_a_time:
            await self._record()

    async def _record(self) -> None:
        model_id = uuid.UUID(self._chain.goal_model_id)
        if not self._has_read:
            row = await asyncio.to_thread(self._catalog.model, self._chain.model)
            if row is not None and row.goal_model_id == model_id:
                self._recorded_waits = row.waits
                self._damage = {int(version): what for version, what in (row.damage or {}).items()}
                self._remember(self._damage)
            self._has_read = True
        waits = self.waits()
        if waits != self._recorded_waits:
            await asyncio.to_thread(self._catalog.record_waits, model_id, self._chain.model, waits)
            self._recorded_waits = waits
        damage = dict(sorted(self._damage_now().items())[-DAMAGED_VERSIONS_MAX:])
        if damage != self._damage:
            await asyncio.to_thread(self._catalog.record_damage, model_id, self._chain.model, damage)
            self._damage = damage

    @override
    async def drained(self) -> None:
        """Write the last condition, if that is possible."""
        try:
            await self.work()
        except (RetryError, OperatorError) as e:  # the next manager records it
            self.error = str(e)
