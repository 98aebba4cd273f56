"""Work of a manager on a timer."""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import AsyncIterator

import structlog
from typing_extensions import override

from teatree.contracts.clock import SYSTEM_CLOCK, Clock
from teatree.contracts.errors import TeatreeError
from teatree.contracts.probe import NO_PROBE, Probe
from teatree_manager.manager_task import ManagerTask


class PeriodicTask(ManagerTask):
    """Works once an interval; what is tolerated is reported by `health`, and the next round tries again."""

    tolerated: tuple[type[TeatreeError], ...] = (TeatreeError,)
    """Errors after which it continues; anything else ends the manager."""

    def __init__(self, model: str, interval_ms: int, probe: Probe = NO_PROBE, clock: Clock = SYSTEM_CLOCK) -> None:
        """`interval_ms` is the longest time between two rounds; 0 disables the task."""
        super().__init__()
        self._probe = probe
        self._clock = clock
        self._interval_ms = interval_ms
        self._log = structlog.get_logger().bind(model=model, task=self.name)

    @override
    async def run(self) -> None:
        async for _ in rounds(self._interval_ms, self._clock):
            await self.run_once()

    async def run_once(self) -> None:
        """Work one round and set `error`; raises what is not tolerated."""
        try:
            with self._probe.step("manager.task", task=self.name):
                await self.work()
        except self.tolerated as e:
            if str(e) != self.error:
                self._log.warning("a periodic task failed", code=str(e.code), error=str(e))
            self.error = str(e)
        else:
            self.error = self.finding

    @property
    def finding(self) -> str | None:
        """What `health` reports after a round without an error."""
        return None

    @abstractmethod
    async def work(self) -> None:
        """Do the work of one round."""

    @override
    async def drained(self) -> None:
        """Return at once: the next manager continues."""


async def rounds(interval_ms: int, clock: Clock = SYSTEM_CLOCK) -> AsyncIterator[None]:
    """Yield for ever, at moments `interval_ms` apart at most, so that not all models do it at once; 0 for never."""
    while interval_ms:
        await clock.sleep_async(interval_ms / 1000 * random.uniform(0.5, 1))  # noqa: S311  no secret
        yield
