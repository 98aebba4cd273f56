"""The lane that reads the newest local version's file, slowly, to notice damage before a reader does."""

from __future__ import annotations

import asyncio
import random

from blake3 import blake3
from typing_extensions import override

from teatree.contracts.errors import RetryError
from teatree.contracts.manifest import FileLayout
from teatree.contracts.settings import ScrubSettings
from teatree.engine.duckdb_errors import DamagedVersionError
from teatree.engine.local_reads import LocalReads
from teatree.storage.chain import Chain
from teatree.storage.packs import BlockTable, checksum
from teatree.storage.versions import HEADER_BYTES, layout_of, read_table
from teatree_manager.lane import Lane
from teatree_manager.local_lane import LocalLane

PIECE_BLOCKS = 16
"""Blocks read at once, 4 MiB: the file is not in anybody's way for longer."""


class LocalScrubLane(Lane):
    """Holds the newest local file against the block table of its version, again and again.

    Every later file is made from it, so damage would stay. What differs ends the manager (DamagedVersionError), and the
    next one makes the file again out of the store.
    """

    name = "local_scrub"

    def __init__(self, chain: Chain, local: LocalLane, reads: LocalReads, settings: ScrubSettings) -> None:
        super().__init__()
        self._chain = chain
        self._local = local
        self._reads = reads
        self._settings = settings

    @override
    async def run(self) -> None:
        if not self._settings.interval_ms:
            return
        while True:
            await asyncio.sleep(self._settings.interval_ms / 1000 * random.uniform(0.5, 1))  # noqa: S311  no secret
            try:
                await self.work()
                self.error = None
            except RetryError as e:  # the store is away
                self.error = str(e)

    @override
    async def work(self) -> None:
        manifest = self._local.current
        if manifest is None:
            return
        layout = layout_of(manifest)
        table = await asyncio.to_thread(read_table, self._chain.store, layout)
        for first in range(0, layout.block_count, PIECE_BLOCKS):
            read_bytes = await asyncio.to_thread(self._check, manifest.version, layout, table, first)
            if not read_bytes:  # a newer version has taken its place
                return
            await asyncio.sleep(read_bytes / self._settings.bytes_per_s)

    def _check(self, version: int, layout: FileLayout, table: BlockTable, first: int) -> int:
        """Check some blocks, the header with the first; return the bytes that were read, 0 if nobody has the file."""
        last = min(first + PIECE_BLOCKS, layout.block_count)
        start = HEADER_BYTES + first * layout.block_bytes if first else 0
        found = self._reads.read_at(version, start, HEADER_BYTES + last * layout.block_bytes - start)
        if found is None:
            return 0
        path, body = found
        blocks = body if first else body[HEADER_BYTES:]
        if not first and checksum(body[:HEADER_BYTES]) != layout.header.checksum:
            raise DamagedVersionError(f"The header of the local file of version {version} changed.", where=str(path))
        for place, index in enumerate(range(first, last)):
            block = blocks[place * layout.block_bytes : (place + 1) * layout.block_bytes]
            if blake3(block).digest() != table.entries[index]["hash"].tobytes():
                raise DamagedVersionError(
                    f"Block {index} of the local file of version {version} changed on the disk by itself.",
                    where=str(path),
                )
        return len(body)

    @override
    async def drained(self) -> None:
        """Return at once: the next manager goes on."""
