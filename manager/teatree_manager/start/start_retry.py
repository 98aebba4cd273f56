"""Retries while a manager begins: each wait is logged and written to the catalog, since nothing else shows it yet."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from structlog.typing import FilteringBoundLogger

from teatree.contracts.clock import SYSTEM_CLOCK, Clock
from teatree.contracts.errors import TeatreeError
from teatree.contracts.retry import Retry, may_pass
from teatree_manager.catalog_status import CatalogStatus

T = TypeVar("T")


class StartRetry:
    """Repeats the calls of one manager that begins, until it is stopped."""

    def __init__(
        self, status: CatalogStatus, log: FilteringBoundLogger, stop: asyncio.Event, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._status = status
        self._log = log
        self._stop = stop
        self._clock = clock

    async def call(
        self,
        event: str,
        work: Callable[[], Awaitable[T]],
        *,
        again: Callable[[TeatreeError], bool] = may_pass,
        subject: str = "",
    ) -> T:
        """Return what `work` returns; raises its error if `again` refuses another try, or once the manager is stopped.

        `event` is logged with each error that is waited for; in the catalog `subject` precedes the error.
        """

        def is_tried_again(error: TeatreeError) -> bool:
            return again(error) and not self._stop.is_set()

        async def try_once() -> T:
            try:
                return await work()
            except TeatreeError as e:
                if is_tried_again(e):
                    self._log.warning(event, error=str(e))
                    await self._status.record_waits(f"{subject}{e}")
                raise

        return await Retry(again=is_tried_again, clock=self._clock).call_async(try_once)
