"""Work on a model's file that waits for what does not answer: the disk, the store."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from teatree.contracts.errors import Code, RetryError
from teatree.contracts.retry import Backoff
from teatree.engine.writer import Writer
from teatree_manager.context import ManagerContext
from teatree_manager.followers.local_file import LocalFollower
from teatree_manager.pipeline.crash_tracker import CrashTracker
from teatree_manager.pipeline.file_thread import FileThread
from teatree_manager.pipeline.request_source import RequestSource
from teatree_manager.waits import WaitingPart

T = TypeVar("T")


class RetryingFile:
    """Runs work on the file thread, again until it succeeds, and registers why it waits."""

    def __init__(
        self,
        context: ManagerContext,
        writer: Writer,
        thread: FileThread,
        crash_tracker: CrashTracker,
        source: RequestSource,
        local: LocalFollower,
    ) -> None:
        """Once `source` is stopped nothing waits any more; `local` deletes files where the disk is full."""
        self.writer = writer
        self.thread = thread
        self.crash_tracker = crash_tracker
        self._reasons = context.waits
        self._source = source
        self._local = local
        self._log = context.log

    async def run(self, work: Callable[[], T]) -> T:
        """Run work on the file until it succeeds."""
        return await self.repeat(WaitingPart.FILE, partial(self.thread.run, work))

    async def repeat(self, part: WaitingPart, call: Callable[[], Awaitable[T]], what: str = "") -> T:
        """Repeat a call until it succeeds; `what` precedes its errors in the reason why `part` waits."""
        backoff = Backoff(clock=self.writer.context.clock)
        while True:
            try:
                done = await call()
            except RetryError as e:
                await self.wait(part, f"{what}{e}", e, backoff)
            else:
                self.resume(part)
                return done

    async def wait(self, part: WaitingPart, why: str, error: RetryError, backoff: Backoff) -> None:
        """Wait for an unavailable part; raise if the manager is to leave: its successor continues from the log."""
        self._register(part, why)
        if self._source.is_stopping:
            await self.thread.run(self.crash_tracker.clear)
            raise error
        if error.code is Code.DISK_FULL:
            await self._local.make_room()
        await backoff.pause(error)

    async def wait_for_disk(self) -> None:
        """Wait while the disk is nearly full, even after old files are deleted: requests in the log are safe there."""
        backoff = Backoff(clock=self.writer.context.clock)
        floor = self.writer.limits.disk_free_bytes_min
        while self._free_bytes() < floor and not self._source.is_stopping:
            await self._local.make_room()
            if self._free_bytes() >= floor:
                break
            self._register(WaitingPart.DISK, f"less than {_mb(floor)} is free on the disk of the data folder")
            await backoff.pause()
        self.resume(WaitingPart.DISK)

    def resume(self, part: WaitingPart) -> None:
        """Register that a part does not wait any more."""
        self._reasons.clear(part)

    def _register(self, part: WaitingPart, why: str) -> None:
        if self._reasons.set(part, why):
            self._log.warning("waiting", why=why)

    def _free_bytes(self) -> int:
        return shutil.disk_usage(self.writer.context.folder.root).free


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / 1_000_000:.3g} MB" if size_bytes < 1_000_000 else f"{size_bytes // 1_000_000} MB"
