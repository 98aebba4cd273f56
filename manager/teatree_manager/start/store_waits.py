"""Waits for the object store while a manager begins, and their report in the catalog."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from teatree.storage.objects.guarded import GuardedStore
from teatree_manager.catalog_status import CatalogStatus
from teatree_manager.context import ManagerContext
from teatree_manager.start.start_retry import StartRetry
from teatree_manager.waits import WaitingPart

T = TypeVar("T")
SLOW_LOOK_MS = 500
"""Milliseconds between checks whether a manager that begins waits for the store."""


class StoreWaits:
    """The waits of one manager for the object store."""

    def __init__(self, context: ManagerContext, store: GuardedStore, status: CatalogStatus, retry: StartRetry) -> None:
        self._store = store
        self._slow_ms = context.settings.breaker.slow_ms
        self._reasons = context.waits
        self._status = status
        self._clock = context.clock
        self._retry = retry
        self._is_serving = False

    def begin_serving(self) -> None:
        """Leave it to the manager's `ConditionTask` to record in the catalog why the model waits."""
        self._is_serving = True

    async def answer(self, ask: Callable[[], T]) -> T:
        """Return what `ask` returns, retried until the store answers; raises RetryError once the manager is stopped."""
        event = "the object store is unavailable"
        return await self._retry.call(event, partial(asyncio.to_thread, ask), subject=f"{event}: ")

    def _slow(self) -> str | None:
        """Return which call the object store has left waiting for long, None if there is none."""
        slow = self._store.slowest()
        if slow is None or slow.seconds * 1000 < self._slow_ms:
            return None
        return f"The object store has not answered for {self._slow_ms / 1000:g} s or longer: {slow.what}"

    async def report_slow(self) -> None:
        """Register that the store is slow, and write it to the catalog until the manager serves; run for ever."""
        reported = False
        while True:
            await self._clock.sleep_async(SLOW_LOOK_MS / 1000)
            why = self._slow()
            if why is None:
                self._reasons.clear(WaitingPart.STORE)
                continue
            self._reasons.set(WaitingPart.STORE, why)
            if not self._is_serving and not reported:
                reported = True
                await self._status.record_waits(why)
