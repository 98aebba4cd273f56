"""Waits for the object store while a manager begins, and their report in the catalog."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from structlog.typing import FilteringBoundLogger

from teatree.contracts.errors import RetryError, TeatreeError
from teatree.contracts.retry import Retry, may_pass
from teatree.storage.guarded import GuardedStore
from teatree_manager.catalog_status import CatalogStatus

T = TypeVar("T")
SLOW_LOOK_MS = 500
"""Milliseconds between checks whether a manager that begins waits for the store."""


class StoreWaits:
    """The waits of one manager for the object store."""

    def __init__(
        self,
        store: GuardedStore,
        slow_ms: int,
        status: CatalogStatus,
        stop: asyncio.Event,
        log: FilteringBoundLogger,
    ) -> None:
        self._store = store
        self._slow_ms = slow_ms
        self._status = status
        self._stop = stop
        self._log = log
        self.is_serving = False
        """Whether the manager's `ConditionFollower` reports why the model waits."""

    async def answer(self, ask: Callable[[], T]) -> T:
        """Return what `ask` returns, retried until the store answers; raises RetryError once the manager is stopped."""

        async def ask_once() -> T:
            try:
                return await asyncio.to_thread(ask)
            except RetryError as e:
                self._log.warning("the object store is away", error=str(e))
                await self._status.record_waits(f"the object store is away: {e}")
                raise

        return await Retry(again=self._is_tried_again).call_async(ask_once)

    def _is_tried_again(self, error: TeatreeError) -> bool:
        return may_pass(error) and not self._stop.is_set()

    def slow(self) -> str | None:
        """Return which call the object store has left waiting for long, None if there is none."""
        slow = self._store.slowest()
        if slow is None or slow.seconds * 1000 < self._slow_ms:
            return None
        return f"The object store has not answered for {self._slow_ms / 1000:g} s or longer: {slow.what}"

    async def report_slow(self) -> None:
        """Write to the catalog that the store is slow, until the manager's `ConditionFollower` does; run for ever."""
        reported = False
        while True:
            await asyncio.sleep(SLOW_LOOK_MS / 1000)
            why = None if self.is_serving else self.slow()
            if why is not None and not reported:
                reported = True
                await self._status.record_waits(why)
