"""The lane that tells the catalog how a model is: why its requests wait, and what is damaged in the store."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Mapping

from typing_extensions import override

from teatree.contracts.errors import OperatorError, RetryError
from teatree.storage.catalog import Catalog
from teatree.storage.chain import Chain
from teatree_manager.follower import Backoff, Follower

LOOK_MS = 500
"""Milliseconds between looks: what is over sooner need not be told."""
DAMAGED_VERSIONS_MAX = 100
"""Damaged versions that are told: bounds the row."""


class ConditionFollower(Follower):
    """Writes what changed, seldom; nothing waits for it.

    What the last manager found damaged is not forgotten when another one comes: it is told to `remember` it.
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
        self._waits: str | None = None
        self._damage: Mapping[int, str] = {}
        self._has_read = False
        self._one_at_a_time = asyncio.Lock()
        self.waits: Callable[[], str | None] = lambda: None
        """Tells why requests wait."""

    @override
    async def run(self) -> None:
        backoff = Backoff()
        while True:
            try:
                await self.work()
            except (RetryError, OperatorError) as e:  # a catalog that is away or locked up must not stop its model
                self.error = str(e)
                await backoff.pause(e)
            else:
                self.error = None
                backoff.reset()
            await asyncio.sleep(LOOK_MS / 1000)

    @override
    async def work(self) -> None:
        async with self._one_at_a_time:
            await self._tell()

    async def _tell(self) -> None:
        model_id = uuid.UUID(self._chain.goal_model_id)
        if not self._has_read:
            row = await asyncio.to_thread(self._catalog.model, self._chain.model)
            if row is not None and row.goal_model_id == model_id:
                self._waits = row.waits
                self._damage = {int(version): what for version, what in (row.damage or {}).items()}
                self._remember(self._damage)
            self._has_read = True
        waits = self.waits()
        if waits != self._waits:
            await asyncio.to_thread(self._catalog.record_waits, model_id, self._chain.model, waits)
            self._waits = waits
        damage = dict(sorted(self._damage_now().items())[-DAMAGED_VERSIONS_MAX:])
        if damage != self._damage:
            await asyncio.to_thread(self._catalog.record_damage, model_id, self._chain.model, damage)
            self._damage = damage

    @override
    async def drained(self) -> None:
        """Tell the last of it, if that can be."""
        try:
            await self.work()
        except (RetryError, OperatorError) as e:  # the next manager tells
            self.error = str(e)
