"""What the catalogue said last, fetched in a task of its own: nothing ever waits for PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from structlog.typing import FilteringBoundLogger

from teatree.contracts.errors import TeatreeError
from teatree.storage.catalog import Catalog
from teatree.storage.catalog_rows import ModelRow
from teatree_dispatcher.leases import LeaseWatch
from teatree_dispatcher.managers import now_ms

FIRST_ANSWER_S_MAX = 2.0


class CatalogView:
    """The catalogue's rows of models: hints that save questions to the store, and leases that ended."""

    def __init__(self, catalog: Catalog | None, interval_ms: int, log: FilteringBoundLogger) -> None:
        self._catalog = catalog
        self._interval_ms = interval_ms
        self._log = log
        self._rows: dict[str, ModelRow] = {}
        self._leases = LeaseWatch()
        self._trouble: str | None = None
        self._answered = asyncio.Event()

    def version(self, model: str) -> int:
        """Return the newest version that the catalogue has heard of, 0 if none."""
        row = self._rows.get(model)
        return row.version if row else 0

    async def wait_first(self) -> None:
        """Give the first answer a moment."""
        if self._catalog is not None:
            await asyncio.wait({asyncio.ensure_future(self._answered.wait())}, timeout=FIRST_ANSWER_S_MAX)

    async def run(self, hanging: Callable[[str], None]) -> None:
        """Ask again and again; `hanging` is told the models whose manager lets its lease end."""
        if self._catalog is None:
            await asyncio.get_running_loop().create_future()  # for ever: there is nobody to ask
            return
        while True:
            await self._ask(self._catalog)
            self._answered.set()
            if self._trouble is None:
                leases = {name: row.lease_until for name, row in self._rows.items()}
                for model in self._leases.hanging(leases, now_ms()):
                    hanging(model)
            await asyncio.sleep(self._interval_ms / 1000)

    async def _ask(self, catalog: Catalog) -> None:
        try:
            self._rows = {row.name: row for row in await asyncio.to_thread(catalog.models)}
        except TeatreeError as e:
            if self._trouble != str(e):  # once; what we know stays true, since the catalogue never leads
                self._trouble = str(e)
                self._log.warning("goes on without the catalogue", **e.to_dict())
        else:
            self._trouble = None
