"""The lane of the local version file, and the answer to which version reads see."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from typing_extensions import override

from teatree.contracts.manifest import Manifest
from teatree.engine.duckdb_errors import DamagedVersionError
from teatree.engine.local_reads import LocalReads
from teatree.engine.local_versions import LocalVersions
from teatree.storage.packs import BlockTable
from teatree_manager.follower import Follower

P = ParamSpec("P")
T = TypeVar("T")
TIDY_MS = 2_000
"""Milliseconds between looks at old local files: readers close them when they like."""


class LocalFollower(Follower):
    """Keeps the newest version as a local file and answers direct reads from it."""

    name = "local"

    def __init__(self, versions: LocalVersions, reads: LocalReads) -> None:
        super().__init__()
        self._versions = versions
        self._reads = reads
        self._manifest: Manifest | None = None
        self._moved = asyncio.Condition()
        self._may_begin = asyncio.Event()
        self._may_begin.set()
        self._later: asyncio.TimerHandle | None = None
        self._files = asyncio.Lock()
        self._user_version = 0
        self._reported: asyncio.Queue[DamagedVersionError] = asyncio.Queue()
        self.current: Manifest | None = None
        """The version that the local file holds; None while there is none."""
        self.table: BlockTable | None = None
        """The blocks of that file; the two change together, between two steps of the event loop."""
        self.moved: list[Callable[[], None]] = []
        """Called when there is another local file, or none any more."""
        self.served = 0
        """The newest version that reads answer for: its user tables are those of the local file."""

    def report(self, damage: DamagedVersionError) -> None:
        """Say that a reader met damage of the local file: it ends this manager, and the next one makes it again."""
        self._reported.put_nowait(damage)

    async def reported(self) -> None:
        """Wait for ever; raises what was reported, whatever the lane itself waits for."""
        raise await self._reported.get()

    async def with_files(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run work on the local files in a thread: one at a time uses them, also if who waits for it is cancelled."""
        async with self._files:
            running = asyncio.ensure_future(asyncio.to_thread(work, *args, **kwargs))
            try:
                return await asyncio.shield(running)
            except asyncio.CancelledError:
                await asyncio.gather(running, return_exceptions=True)
                raise

    async def make_room(self) -> None:
        """Give up what only makes the next versions cheaper: the disk is nearly full."""
        self._versions.in_use = self._reads.in_use()
        given_up = await self.with_files(self._versions.make_room)
        if given_up:
            self._log.warning("gave old local files up: the disk is nearly full", files=given_up)

    def hold(self) -> None:
        """Make no file until `release`, or until a read waits for one."""
        self._may_begin.clear()

    def release(self) -> None:
        """Make files from now on."""
        self._may_begin.set()

    def follow(self, manifest: Manifest) -> None:
        """Take a version as the newest."""
        self._manifest = manifest
        self.wake()

    @override
    async def work(self) -> None:
        await self._may_begin.wait()
        while (manifest := self._manifest) is not None:
            if await self._follow(manifest):
                break

    async def _follow(self, manifest: Manifest) -> bool:
        """Make a version's file, or wait until that is cheap: then return False, a newer one may have come."""
        if manifest.file is None:
            await self.with_files(self._versions.drop)
            await asyncio.to_thread(self._reads.close)
            self.current = self.table = None
            self._tell_moved()
        elif self.current is None or manifest.user_version > self._user_version:
            self._versions.in_use = self._reads.in_use()
            pause_ms = await self.with_files(self._versions.pause_ms, manifest)
            if pause_ms > 0:
                await asyncio.sleep(pause_ms / 1000)
                return False
            path, table = await self.with_files(self._versions.publish, manifest)
            await asyncio.to_thread(self._reads.switch, manifest.version, path)
            self._user_version = manifest.version
            self.current, self.table = manifest, table
            self._tell_moved()
        async with self._moved:
            self.served = manifest.version
            self._moved.notify_all()
        await self._tidy()
        return True

    def _tell_moved(self) -> None:
        for callback in self.moved:
            callback()

    async def _tidy(self) -> None:
        self._versions.in_use = self._reads.in_use()
        again = await self.with_files(self._versions.tidy)
        if self._later is not None:
            self._later.cancel()
        self._later = asyncio.get_running_loop().call_later(TIDY_MS / 1000, self.wake) if again else None

    @property
    def is_gone(self) -> bool:
        """Whether the newest version says that there is no model, be its file still here or not made yet."""
        return self._manifest is not None and self._manifest.file is None

    @property
    def is_behind(self) -> bool:
        """Whether the newest version is being made, and does not wait for what is away or damaged."""
        return self._manifest is not None and self.served < self._manifest.version and self.error is None

    async def wait_for(self, version: int, timeout_ms: float) -> bool:
        """Wait until reads answer for a version or a newer one; False if it takes longer."""
        if self.served < version:
            self.release()
        try:
            async with asyncio.timeout(timeout_ms / 1000), self._moved:
                await self._moved.wait_for(lambda: self.served >= version)
        except TimeoutError:
            return False
        return True
