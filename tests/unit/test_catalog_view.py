"""The dispatcher records every report in the catalog, also those that arrive during a write."""

from __future__ import annotations

import asyncio
import threading
import uuid
from contextlib import suppress
from typing import Any, cast

import structlog

from teatree.contracts.settings import DispatcherSettings
from teatree.storage.catalog.catalog import Catalog
from teatree_dispatcher.catalog_view import CatalogView

EVERY = 4


class Rows:
    """A catalog that keeps its rows; during the first record of each kind another report arrives."""

    def __init__(self) -> None:
        self.view: CatalogView | None = None
        self.recorded: list[Any] = []
        self.all_came = threading.Event()

    def models(self) -> list[Any]:
        """Return no rows."""
        return []

    def _keep(self, what: object) -> None:
        self.recorded.append(what)
        if len(self.recorded) == EVERY:
            self.all_came.set()

    def record_error(self, _: uuid.UUID, model: str, error: dict[str, Any]) -> None:
        """Keep an error."""
        self._keep(error)
        if self.view is not None and error["code"] == "first":
            self.view.report_error(model, {"code": "second"})

    def record_waits(self, _: uuid.UUID, model: str, why: str) -> None:
        """Keep a wait."""
        self._keep(why)
        if self.view is not None and why == "wait 1":
            self.view.report_waits(model, "wait 2")


async def ignored(model: str) -> None:
    """Do nothing for a model whose lease ends."""


async def test_what_is_reported_during_a_record_is_recorded_next() -> None:
    """The catalog has the newest reason of a model in the end."""
    rows = Rows()
    view = rows.view = CatalogView(
        cast("Catalog", rows), DispatcherSettings(poll_ms=1, request_log_days=0), structlog.get_logger()
    )
    view.report_error("m", {"code": "first"})
    view.report_waits("m", "wait 1")
    task = asyncio.create_task(view.run(ignored))
    assert await asyncio.to_thread(rows.all_came.wait, 10)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert sorted(map(str, rows.recorded)) == ["wait 1", "wait 2", "{'code': 'first'}", "{'code': 'second'}"]
