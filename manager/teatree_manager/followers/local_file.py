"""The follower that keeps the newest version as a local file, which direct reads use."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ParamSpec, TypeVar

from typing_extensions import override

from teatree.contracts.clock import SYSTEM_CLOCK, Clock, Timer
from teatree.contracts.formats.manifest import Manifest, ModelState
from teatree.contracts.probe import NO_PROBE, Probe
from teatree.engine.errors import DamagedVersionError
from teatree.engine.local.reads import LocalReads
from teatree.engine.local.versions import LocalVersions
from teatree.storage.ledger.segments import Entry
from teatree.storage.versions.packs import BlockTable
from teatree_manager.followers.base import Follower

P = ParamSpec("P")
T = TypeVar("T")
TIDY_MS = 2_000
"""Milliseconds between checks of old local files: readers close them at any time."""


# More than ten public methods: a follower's four, and what direct reads and the disk's shortage ask of the local file.
class LocalFollower(Follower):
    """Keeps the newest version as a local file and answers direct reads from it."""

    name = "local"

    def __init__(
        self, versions: LocalVersions, reads: LocalReads, probe: Probe = NO_PROBE, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        super().__init__(probe, clock)
        self._versions = versions
        self._reads = reads
        self._manifest: Manifest | None = None
        self._moved = asyncio.Condition()
        self._may_begin = asyncio.Event()
        self._may_begin.set()
        self._later: Timer | None = None
        self._files = asyncio.Lock()
        self._user_version = 0
        self._reported: asyncio.Queue[DamagedVersionError] = asyncio.Queue()
        self.current: Manifest | None = None
        """The version that the local file holds; None while there is none."""
        self.table: BlockTable | None = None
        """The block table of that file; the two change together, within one step of the event loop."""
        self._subscribers: list[Callable[[], None]] = []
        self.served = 0
        """The newest version that reads answer for: its user tables are those of the local file."""

    def subscribe(self, callback: Callable[[], None]) -> None:
        """Call `callback` whenever the local file is replaced or removed."""
        self._subscribers.append(callback)

    def report(self, damage: DamagedVersionError) -> None:
        """Report that a reader met damage of the local file: it ends this manager, and the next one makes it again."""
        self._reported.put_nowait(damage)

    async def reported(self) -> None:
        """Wait for ever; raises what was reported, whatever the follower itself waits for."""
        raise await self._reported.get()

    async def with_files(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run work on the local files in a thread, one at a time, also after its caller was cancelled."""
        async with self._files:
            running = asyncio.ensure_future(asyncio.to_thread(work, *args, **kwargs))
            try:
                return await asyncio.shield(running)
            except asyncio.CancelledError:
                await asyncio.gather(running, return_exceptions=True)
                raise

    async def make_room(self) -> None:
        """Delete files that only make the next versions cheaper: the disk is nearly full."""
        given_up = await self.with_files(self._versions.make_room)
        if given_up:
            self._log.warning("deleted old local files: the disk is nearly full", files=given_up)

    def hold(self) -> None:
        """Make no file until `release` is called or a read waits for one."""
        self._may_begin.clear()

    def release(self) -> None:
        """Make files from now on."""
        self._may_begin.set()

    @override
    def follow(self, manifest: Manifest, entries: Sequence[Entry] = ()) -> None:
        self._manifest = manifest
        self.wake()

    @override
    async def work(self) -> None:
        await self._may_begin.wait()
        while (manifest := self._manifest) is not None:
            if await self._follow(manifest):
                break

    async def _follow(self, manifest: Manifest) -> bool:
        """Make a version's file; return False after a pause instead, since there may be a newer version then."""
        if manifest.state is not ModelState.ACTIVE:
            await self.with_files(self._versions.drop)
            await asyncio.to_thread(self._reads.close)
            self.current = self.table = None
            self._notify_moved()
        elif self.current is None or manifest.user_version > self._user_version:
            pause_ms = await self.with_files(self._versions.pause_ms, manifest)
            if pause_ms > 0:
                await self._clock.sleep_async(pause_ms / 1000)
                return False
            path, table = await self.with_files(self._versions.publish, manifest)
            await asyncio.to_thread(self._reads.switch, manifest.version, path)
            self._user_version = manifest.version
            self.current, self.table = manifest, table
            self._notify_moved()
        async with self._moved:
            self.served = manifest.version
            self._moved.notify_all()
        await self._tidy()
        return True

    def _notify_moved(self) -> None:
        for callback in self._subscribers:
            callback()

    async def _tidy(self) -> None:
        again = await self.with_files(self._versions.tidy)
        if self._later is not None:
            self._later.cancel()
        self._later = self._clock.call_later(TIDY_MS / 1000, self.wake) if again else None

    def newest_file(self) -> tuple[int, Path] | None:
        """Return the version that is read now and its file; None before the first."""
        return self._reads.newest_file()

    @property
    def is_dropped(self) -> bool:
        """Whether the newest version has no model, even if the local file still holds an older one."""
        return self._manifest is not None and self._manifest.state is not ModelState.ACTIVE

    @property
    @override
    def is_catching_up(self) -> bool:
        """Whether the newest version's file is being made, and does not wait for an unavailable or damaged part."""
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
