"""The periodic task that reads the local files that versions are made from, to find damage before a reader does."""

from __future__ import annotations

import asyncio
import random

from typing_extensions import override

from teatree.contracts.formats.manifest import Extent, Manifest
from teatree.engine.duckdb.block_file import BLOCK_BYTES
from teatree.engine.errors import DamagedVersionError
from teatree.engine.local.damage import damaged_block
from teatree.engine.local.reads import LocalReads
from teatree.engine.local.spares import Spare
from teatree.engine.local.versions import LocalVersions
from teatree.storage.versions.packs import BlockTable, checksum
from teatree.storage.versions.reader import HEADER_BYTES, layout_of
from teatree_manager.context import ManagerContext
from teatree_manager.followers.local_file import LocalFollower
from teatree_manager.periodic.base import PeriodicTask

PIECE_BLOCKS = 16
"""Blocks read at once, 4 MiB: bounds how long the file is in use."""


class LocalScrubTask(PeriodicTask):
    """Compares the newest local file, and then the spares, with their block tables, again and again.

    Every later file is made from them, so damage would stay. Damage of the newest ends the manager
    (DamagedVersionError), and the next one makes the file again out of the store; a damaged spare is reported and
    deleted. The tables are those in memory: the store is not read, `ScrubTask` checks it. A round continues at its
    block when a newer version takes the file's place, since most blocks stay the same.
    """

    name = "local_scrub"
    tolerated = ()

    def __init__(
        self, context: ManagerContext, local: LocalFollower, versions: LocalVersions, reads: LocalReads
    ) -> None:
        settings = context.settings.scrub
        super().__init__(context.model, settings.interval_ms, context.probe, context.clock)
        self._local = local
        self._versions = versions
        self._reads = reads
        self._settings = settings
        self._next = -1
        """The block of the newest file at which the next piece begins; -1 before the first."""
        self.damaged_spares = 0
        """Spares that this manager found damaged."""

    @override
    async def work(self) -> None:
        """Read all of the newest file, or of those that take its place meanwhile, and all of each spare."""
        for _ in range(0, len(self._local.table or ()), PIECE_BLOCKS):
            manifest, table = self._local.current, self._local.table
            if manifest is None or table is None:  # the model was dropped
                break
            await asyncio.to_thread(self._check_newest, manifest, table)
            await self._pause()  # also if the file was closed a moment ago: its successor follows soon
        for spare in self._versions.spares():
            await self._check_spare(spare)

    async def _check_spare(self, spare: Spare) -> None:
        count = len(spare.table)
        for first in range(0, count, PIECE_BLOCKS):
            last = min(first + PIECE_BLOCKS, count)
            try:
                is_spare = await self._local.with_files(self._versions.check_spare, spare, first, last)
            except DamagedVersionError as e:
                self.damaged_spares += 1
                self._log.error(
                    "an old local file is damaged; it was deleted",
                    code=str(e.code),
                    error=str(e),
                    damaged_spares=self.damaged_spares,
                )
                return
            if not is_spare:  # it became a version's file, or is not needed any more
                return
            await self._pause()

    async def _pause(self) -> None:
        await self._clock.sleep_async(PIECE_BLOCKS * BLOCK_BYTES / self._settings.bytes_per_s)

    def _check_newest(self, manifest: Manifest, table: BlockTable) -> None:
        """Check the next blocks of the newest file, the header with the first; a closed file is checked later."""
        count = len(table)
        if self._next < 0:  # a random block: managers that run shortly still check all blocks in time
            self._next = random.randrange(max(count, 1))  # noqa: S311  no secret
        first = self._next if self._next < count else 0
        last = min(first + PIECE_BLOCKS, count)
        if self._check(manifest.version, layout_of(manifest).header, table, first, last):
            self._next = last

    def _check(self, version: int, header: Extent, table: BlockTable, first: int, last: int) -> bool:
        start = HEADER_BYTES + first * BLOCK_BYTES if first else 0
        found = self._reads.read_at(version, start, HEADER_BYTES + last * BLOCK_BYTES - start)
        if found is None:
            return False
        path, body = found
        if not first and checksum(body[:HEADER_BYTES]) != header.checksum:
            raise DamagedVersionError(f"The header of the local file of version {version} changed.", where=str(path))
        damaged = damaged_block(body if first else body[HEADER_BYTES:], table, first, last)
        if damaged is not None:
            raise DamagedVersionError(
                f"Block {damaged} of the local file of version {version} changed on the disk.",
                where=str(path),
            )
        return True
