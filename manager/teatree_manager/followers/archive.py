"""The follower that writes the Parquet archives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from typing_extensions import override

from teatree.contracts.errors import Code, CorruptError, RetryError, TeatreeError
from teatree.contracts.formats.manifest import Manifest, ModelState
from teatree.engine.local.reads import LocalReads
from teatree.engine.publish.archive import write_archive
from teatree.engine.writer import Writer
from teatree.storage.archives import Archived, first_archive_since, read_answer, read_archive, record_answer
from teatree.storage.disk import translating_disk_full
from teatree.storage.ledger.segments import Entry
from teatree.storage.temporary_folder import temporary_folder
from teatree_manager.context import ManagerContext
from teatree_manager.followers.base import Follower, is_damage_of_store
from teatree_manager.followers.local_file import LocalFollower
from teatree_manager.waits import WaitingPart


class ArchiveFollower(Follower):
    """Writes the local version's changed tables as Parquet, and those that an `archive` request waits for.

    Such a request waits for no repair. Blocks of its version that the writer's file still holds are read from there; if
    the others are damaged in the store the newest version is archived instead: it holds the effects of all before it.
    Which archive answers the request is recorded once, before the outcome is published.
    """

    name = "archive"

    def __init__(
        self,
        context: ManagerContext,
        local: LocalFollower,
        reads: LocalReads,
        writer: Writer,
        written: Callable[[Manifest], None],
        answered: Callable[[int], None],
    ) -> None:
        """`written` is called with each version that is archived, `answered` with each whose request is done."""
        super().__init__(context.probe, context.clock)
        self._chain = context.chain
        self._local = local
        self._reads = reads
        self._writer = writer
        self._temp = context.folder.temp
        self._interval_ms = context.settings.manager.archive_interval_ms
        self._reasons = context.waits
        self._written = written
        self._answered = answered
        self._barriers: list[tuple[Manifest, Sequence[str]]] = []
        self._last: Archived | None = None
        self._last_ms = float("-inf")
        self._asked = asyncio.Event()
        local.subscribe(self.wake)

    @override
    def follow(self, manifest: Manifest, entries: Sequence[Entry] = ()) -> None:
        """Do nothing: the local file is archived, once it is replaced."""

    def wait_for(self, manifest: Manifest, tables: Sequence[str]) -> None:
        """Archive these tables of a version, all if it names none; `answered` is called when they are archived."""
        self._barriers.append((manifest, tables or [table.name for table in manifest.tables]))
        self._asked.set()
        self.wake()

    @override
    async def work(self) -> None:
        self._asked.clear()
        try:
            damage = await self._archive_asked()
            await self._archive_newest(may_wait=damage is None)
        except RetryError as e:
            if e.code is Code.OVER_LIMIT:  # it does not pass without an operator
                self._reasons.set(WaitingPart.ARCHIVE, f"the archive cannot be written: {e}")
            else:
                self._reasons.clear(WaitingPart.ARCHIVE)
            raise
        self._reasons.clear(WaitingPart.ARCHIVE)
        if damage is not None:
            raise damage

    async def _archive_asked(self) -> TeatreeError | None:
        """Archive what requests wait for; return the damage that keeps some of them waiting."""
        damage = None
        for barrier in list(self._barriers):
            try:
                await self._answer(*barrier)
            except TeatreeError as e:
                if not is_damage_of_store(e):
                    raise
                damage = e
            else:
                self._barriers.remove(barrier)
        return damage

    async def _answer(self, manifest: Manifest, tables: Sequence[str]) -> None:
        """Complete a request; raises `corrupt` if the archive that answered it, or the record of that, is damaged."""
        try:
            answer = await asyncio.to_thread(read_answer, self._chain, manifest)
        except CorruptError:
            self._answered(manifest.version)
            raise
        if answer is None:
            archived = await self._archive_since(manifest, tables)
            await asyncio.to_thread(record_answer, self._chain, manifest, archived.version)
        self._answered(manifest.version)
        if answer is not None:
            await asyncio.to_thread(read_archive, self._chain, answer)

    async def _archive_since(self, manifest: Manifest, wanted: Sequence[str]) -> Manifest:
        """Archive a version, or the newest if its content is damaged; return the archived version."""
        try:
            await self._archive(manifest, wanted)
        except TeatreeError as e:
            if not is_damage_of_store(e):
                raise
            self._log.warning("archiving the newest version instead", version=manifest.version, error=str(e))
        else:
            return manifest
        newest = self._writer.manifest
        await self._archive(newest, [entry.name for entry in newest.tables if entry.name in wanted])
        return newest

    async def _archive_newest(self, *, may_wait: bool) -> None:
        current = self._local.current
        if current is None:
            return
        if self._last is None:  # an earlier manager's archive is current as long as no user table has changed
            self._last = await asyncio.to_thread(first_archive_since, self._chain, current.user_version)
        if self._last is not None and current.user_version <= self._last.version:
            return
        pause_ms = self._interval_ms - (self._clock.monotonic_ms() - self._last_ms)
        if pause_ms > 0:
            if may_wait:
                await self._clock.wait_async(self._asked, pause_ms / 1000)
                self.wake()  # there may be a newer version by now
            return
        await self._archive(current, ())
        self._last_ms = self._clock.monotonic_ms()

    async def _archive(self, manifest: Manifest, wanted: Sequence[str]) -> None:
        if manifest.state is ModelState.ACTIVE:
            archived = await asyncio.to_thread(self._write, manifest, wanted)
            if self._last is None or archived.version > self._last.version:
                self._last = archived
        self._written(manifest)

    def _write(self, manifest: Manifest, wanted: Sequence[str]) -> Archived:
        what = f"The archive of version {manifest.version}"
        with translating_disk_full(what, self._temp), temporary_folder(self._temp) as folder:

            def restore() -> Path:
                path = folder / "version.duckdb"
                self._writer.restore(manifest, path)
                return path

            with self._reads.source(manifest.version, restore) as source:
                return write_archive(self._chain, manifest, source, self._last, wanted, self._probe)
