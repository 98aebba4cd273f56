"""Reading ahead: what was read and what was checked must come from one log."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from teatree.contracts.errors import Code, RetryError
from teatree.contracts.requests import LogPosition, Request
from teatree.contracts.settings import LimitSettings
from teatree.messaging.log import LogSlice
from teatree_manager.crash_tracker import CrashTracker
from teatree_manager.pipeline import Pipeline

AT = datetime(2026, 1, 1, tzinfo=UTC)


class Log:
    """A log whose server ends once, right after it was read, and is restored from an older copy."""

    def __init__(self) -> None:
        self.losses = 0
        self.reads = 0

    async def read(self, after: int, **_: object) -> LogSlice:
        self.reads += 1
        name = "old" if self.losses == 0 else "new"
        return LogSlice([Request("sales", "append", after + 1, AT, name)], 0)

    async def at(self, _: LogPosition) -> None:
        self.losses = 1


def reading(log: Any, folder: Path) -> Pipeline:
    """Return a pipeline that reads a log."""
    writer = cast("Any", SimpleNamespace(limits=LimitSettings(), chain=SimpleNamespace(model="sales")))
    hints = cast("Any", SimpleNamespace(take=lambda: None, event=asyncio.Event()))
    return Pipeline(writer, log, log, hints, CrashTracker(folder / "attempt", 3), 1_000, lambda: 0, lambda _: None)


async def test_a_manager_that_leaves_waits_no_more(tmp_path: Path) -> None:
    """A manager that must leave while the log is unavailable reports no request as waiting."""
    asked = asyncio.Event()

    async def away(*_: object, **__: object) -> LogSlice:
        asked.set()
        raise RetryError(Code.UNAVAILABLE, "NATS is away.")

    log = cast("Any", SimpleNamespace(losses=0, read=away, at=away))
    pipeline = reading(log, tmp_path)
    task = asyncio.create_task(pipeline._read(3, LogPosition(3, AT)))
    await asked.wait()
    assert pipeline.waiting_for is not None
    pipeline.stop()
    assert (await task).requests == []
    assert pipeline.waiting_for is None


async def test_lost_between_read_and_check(tmp_path: Path) -> None:
    """What was read before the connection was lost is read again: the check after it looked at another server."""
    log = cast("Any", Log())
    found = await reading(log, tmp_path)._read(3, LogPosition(3, AT))
    assert [request.request_id for request in found.requests] == ["new"]
    assert log.reads == 2


def test_leaving_does_not_wait_for_work_that_does_not_end(tmp_path: Path) -> None:
    """Work on the file is interrupted; if that has no effect, closing raises an error within a set time."""
    left, ended = threading.Event(), threading.Event()
    pipeline = reading(cast("Any", None), tmp_path)
    pipeline._writer = cast("Any", SimpleNamespace(leave=left.set, close=lambda: None))
    pipeline._file_thread.submit(ended.wait)
    with pytest.raises(TimeoutError):
        pipeline.close(wait_ms_max=20)
    assert left.is_set()
    ended.set()
    pipeline.close()
