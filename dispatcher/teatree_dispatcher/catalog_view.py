"""The dispatcher's view of the catalog: the rows as read last, and what it records there. No work waits for it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from structlog.typing import FilteringBoundLogger

from teatree.contracts.clock import SYSTEM_CLOCK, Clock
from teatree.contracts.errors import TeatreeError
from teatree.contracts.names import goal_model_id
from teatree.contracts.settings import DispatcherSettings
from teatree.storage.catalog.catalog import Catalog
from teatree.storage.catalog.rows import ModelRow
from teatree_dispatcher.leases import LeaseWatch

FIRST_ANSWER_S_MAX = 2.0
TRIM_INTERVAL_MS = 3_600_000
"""Milliseconds between deletions of requests that the catalog need not list any more."""
TRIM_ROWS = 50_000
"""Rows of one transaction that deletes requests: bounds its time."""


class CatalogView:
    """The catalog's rows of models: hints that save reads of the store, and leases that ended."""

    def __init__(
        self,
        catalog: Catalog | None,
        settings: DispatcherSettings,
        log: FilteringBoundLogger,
        prefix: str = "teatree",
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._catalog = catalog
        self._interval_ms = settings.poll_ms
        self._prefix = prefix
        self._request_log_days = settings.request_log_days
        self._clock = clock
        self._trimmed_at_ms = float("-inf")
        self._errors: dict[str, dict[str, Any]] = {}
        self._waiting: dict[str, str] = {}
        self._log = log
        self._rows: dict[str, ModelRow] = {}
        self._leases = LeaseWatch(settings.hanging_ms_min)
        self._trouble: str | None = None
        self._answered = asyncio.Event()

    def version(self, model: str) -> int:
        """Return the newest version that the catalog holds, 0 if none."""
        row = self._rows.get(model)
        return row.version if row else 0

    def report_error(self, model: str, error: dict[str, Any]) -> None:
        """Write why a model has no manager, with the next update; its next manager clears that."""
        self._errors[model] = error

    def report_waits(self, model: str, why: str) -> None:
        """Write what a model without a manager waits for, with the next update; its next manager clears that."""
        self._waiting[model] = why

    def forget_reports(self, model: str) -> None:
        """Drop what is not recorded yet about a model whose next manager has been started."""
        self._errors.pop(model, None)
        self._waiting.pop(model, None)

    async def wait_first(self) -> None:
        """Wait a moment for the catalog's first answer."""
        if self._catalog is not None:
            await asyncio.wait({asyncio.ensure_future(self._answered.wait())}, timeout=FIRST_ANSWER_S_MAX)

    async def run(self, hanging: Callable[[str], Awaitable[None]]) -> None:
        """Update the view for ever; `hanging` is called with each model whose manager lets its lease end."""
        if self._catalog is None:
            await asyncio.get_running_loop().create_future()  # for ever: there is no catalog
            return
        while True:
            await self._update(self._catalog)
            self._answered.set()
            if self._trouble is None:
                leases = {name: row.lease_until for name, row in self._rows.items()}
                for model in self._leases.hanging(leases, self._clock.now(), self._clock.monotonic_ms()):
                    await hanging(model)
            await self._clock.sleep_async(self._interval_ms / 1000)

    async def _update(self, catalog: Catalog) -> None:
        try:
            await self._record(catalog)
            self._rows = {row.name: row for row in await asyncio.to_thread(catalog.models)}
            await self._trim(catalog)
        except TeatreeError as e:
            if self._trouble != str(e):  # once; rows read earlier stay usable, since the catalog never leads
                self._trouble = str(e)
                self._log.warning("the dispatcher continues without the catalog", **e.to_dict())
        else:
            self._trouble = None

    async def _record(self, catalog: Catalog) -> None:
        for model, error in list(self._errors.items()):
            await asyncio.to_thread(catalog.record_error, self._id(model), model, error)
            if self._errors.get(model) is error:  # else a newer one was reported meanwhile, and is recorded next
                del self._errors[model]
        for model, why in list(self._waiting.items()):
            await asyncio.to_thread(catalog.record_waits, self._id(model), model, why)
            if self._waiting.get(model) is why:
                del self._waiting[model]

    async def _trim(self, catalog: Catalog) -> None:
        """Delete a portion of the requests that ended long ago; the next update deletes more."""
        if not self._request_log_days or self._clock.monotonic_ms() - self._trimmed_at_ms < TRIM_INTERVAL_MS:
            return
        before = self._clock.now() - timedelta(days=self._request_log_days)
        if await asyncio.to_thread(catalog.trim_requests, before, rows_max=TRIM_ROWS) < TRIM_ROWS:
            self._trimmed_at_ms = self._clock.monotonic_ms()

    def _id(self, model: str) -> uuid.UUID:
        return goal_model_id(self._prefix, model)
