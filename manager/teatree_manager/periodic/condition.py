"""The follower that records a model's condition in the catalog: why requests wait, and what is damaged in the store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from typing_extensions import override

from teatree.contracts.errors import OperatorError, RetryError
from teatree.storage.catalog.catalog import Catalog
from teatree_manager.context import ManagerContext
from teatree_manager.periodic.base import PeriodicTask

LOOK_MS = 500
"""Milliseconds between checks: a shorter wait need not be recorded."""
DAMAGED_VERSIONS_MAX = 100
"""Damaged versions that are recorded: bounds the row."""


class ConditionTask(PeriodicTask):
    """Writes a changed condition into the catalog; nothing waits for it.

    Damage that an earlier manager recorded is not lost: it is read at the start and passed to `remember`.
    """

    name = "condition"
    tolerated = (RetryError, OperatorError)
    """A catalog that is unavailable or locked must not stop its model."""

    def __init__(
        self,
        context: ManagerContext,
        catalog: Catalog,
        remember: Callable[[Mapping[int, str]], None],
        damage: Callable[[], Mapping[int, str]],
    ) -> None:
        """`damage` returns what is damaged now, by version."""
        super().__init__(context.model, LOOK_MS, context.probe, context.clock)
        self._catalog = catalog
        self._chain = context.chain
        self._goal_model_id = context.goal_model_id
        self._reasons = context.waits
        self._remember = remember
        self._damage_now = damage
        self._recorded_waits: str | None = None
        self._damage: Mapping[int, str] = {}
        self._has_read = False
        self._one_at_a_time = asyncio.Lock()

    @override
    async def work(self) -> None:
        async with self._one_at_a_time:
            await self._record()

    async def _record(self) -> None:
        model_id = self._goal_model_id
        if not self._has_read:
            row = await asyncio.to_thread(self._catalog.model, self._chain.model)
            if row is not None and row.goal_model_id == model_id:
                self._recorded_waits = row.waits
                self._damage = {int(version): what for version, what in (row.damage or {}).items()}
                self._remember(self._damage)
            self._has_read = True
        waits = self._reasons.model
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
