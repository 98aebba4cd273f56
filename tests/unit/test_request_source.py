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
from teatree.contracts.formats.requests import LogPosition, Request
from teatree.contracts.probe import NO_PROBE
from teatree.contracts.settings import LimitSettings, Settings, StoreSettings
from teatree.messaging.log import LogSlice
from teatree.storage.model_folder import model_folder
from teatree.storage.objects.stores import open_store
from teatree.storage.versions.chain import Chain
from teatree_manager.context import ManagerContext
from teatree_manager.pipeline.file_thread import FileThread
from teatree_manager.pipeline.request_source import RequestSource

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


def reading(log: Any, folder: Path) -> tuple[RequestSource, ManagerContext]:
    """Return the reading of a log, and what its manager's parts share."""
    chain = Chain(open_store(StoreSettings(url=folder.as_uri())), "t", "sales")
    context = ManagerContext(Settings(), chain, model_folder(folder, "sales"), None, NO_PROBE)
    hints = cast("Any", SimpleNamespace(take=lambda: None, event=asyncio.Event()))
    return RequestSource(context, log, log, hints), context


async def test_a_manager_that_leaves_waits_no_more(tmp_path: Path) -> None:
    """A manager that must leave while the log is unavailable reports no request as waiting."""
    asked = asyncio.Event()

    async def away(*_: object, **__: object) -> LogSlice:
        asked.set()
        raise RetryError(Code.UNAVAILABLE, "NATS is away.")

    log = cast("Any", SimpleNamespace(losses=0, read=away, at=away))
    source, context = reading(log, tmp_path)
    task = asyncio.create_task(source.read(3, LogPosition(3, AT), LimitSettings()))
    await asked.wait()
    assert context.waits.requests is not None
    source.stop()
    assert (await task).requests == []
    assert context.waits.requests is None


async def test_lost_between_read_and_check(tmp_path: Path) -> None:
    """What was read before the connection was lost is read again: the check after it looked at another server."""
    log = cast("Any", Log())
    source, _ = reading(log, tmp_path)
    found = await source.read(3, LogPosition(3, AT), LimitSettings())
    assert [request.request_id for request in found.requests] == ["new"]
    assert log.reads == 2


async def test_leaving_does_not_wait_for_work_that_does_not_end(tmp_path: Path) -> None:
    """Work on the file is interrupted; if that has no effect, closing raises an error within a set time."""
    left, ended = threading.Event(), threading.Event()
    thread = FileThread(tmp_path)
    writer = cast("Any", SimpleNamespace(leave=left.set, close=lambda: None))
    running = asyncio.create_task(thread.run(ended.wait))
    await asyncio.sleep(0)
    with pytest.raises(TimeoutError):
        await asyncio.to_thread(thread.close, writer, 20)
    assert left.is_set()
    ended.set()
    await running
    thread.close(writer)
