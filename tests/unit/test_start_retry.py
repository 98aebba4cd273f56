"""What a manager that begins waits for: tried again, logged, and shown in the catalog."""

from __future__ import annotations

import asyncio

import pytest
import structlog
from typing_extensions import override

from teatree.contracts.errors import Code, RetryError, TeatreeError
from teatree_manager.catalog_status import CatalogStatus
from teatree_manager.start.start_retry import StartRetry

AWAY = RetryError(Code.UNAVAILABLE, "It is away.")


class _Recorded(CatalogStatus):
    def __init__(self) -> None:
        self.waits: list[str] = []

    @override
    async def record_waits(self, why: str) -> None:
        self.waits.append(why)


class _Part:
    """A part that fails so many times before it answers."""

    def __init__(self, failures: int) -> None:
        self.failures = failures

    async def ask(self) -> str:
        """Return its answer."""
        self.failures -= 1
        if self.failures >= 0:
            raise AWAY
        return "here"


async def test_each_wait_is_recorded() -> None:
    """A call is repeated until it succeeds; the log and the catalog have each error before that."""
    status = _Recorded()
    retry = StartRetry(status, structlog.get_logger(), asyncio.Event())
    with structlog.testing.capture_logs() as logs:
        assert await retry.call("the part is away", _Part(2).ask, subject="away: ") == "here"
    assert status.waits == [f"away: {AWAY}"] * 2
    assert [(log["event"], log["error"]) for log in logs] == [("the part is away", str(AWAY))] * 2


async def test_no_wait_that_is_not_to_be_made() -> None:
    """A stopped manager, and one whose call must not be repeated, ends with the error at once."""
    stop = asyncio.Event()
    status = _Recorded()
    retry = StartRetry(status, structlog.get_logger(), stop)

    def never(_: TeatreeError) -> bool:
        return False

    with pytest.raises(RetryError):
        await retry.call("refused", _Part(1).ask, again=never)
    stop.set()
    with pytest.raises(RetryError):
        await retry.call("stopped", _Part(1).ask)
    assert status.waits == []
