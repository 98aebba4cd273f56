"""The block table of one version, leaf by leaf: a leaf is fetched when one of its blocks is first touched."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from teatree.contracts.errors import CorruptError
from teatree.contracts.formats.manifest import FileLayout
from teatree.storage.objects.base import ObjectStore
from teatree.storage.versions.block_cache import BlockCache
from teatree.storage.versions.frames import Frame, RangeRead, fetch, plan_reads
from teatree.storage.versions.packs import ENTRY, LEAF_ENTRIES, BlockTable, Entries, leaf_bytes

AROUND_BYTES_MAX = 1_000_000
"""Bytes of other leaves read along when they lie beside a wanted one: a fresh model's whole table is one read."""
READERS = 4
"""Range reads at the same time."""


class Leaves:
    """The leaves that are loaded so far; threads share it, one fetches and the others wait."""

    def __init__(self, store: ObjectStore, layout: FileLayout, cache: BlockCache | None = None) -> None:
        self.layout = layout
        self.fetched_bytes = 0
        self._store = store
        self._cache = cache
        self._lock = threading.Lock()
        self._known: dict[int, Entries] = {}

    def learn(self, number: int, entries: Entries) -> None:
        """Take over a leaf that is known already, from a file that was pulled before."""
        self._known[number] = entries

    def entries(self, blocks: Iterable[int]) -> dict[int, np.void]:
        """Return the entries of blocks, fetching their leaves where they are not here yet."""
        blocks = list(blocks)
        missing = {block // LEAF_ENTRIES for block in blocks} - self._known.keys()
        if missing:
            with self._lock:
                self._load(missing - self._known.keys())
        return {block: self._known[block // LEAF_ENTRIES][block % LEAF_ENTRIES] for block in blocks}

    def table(self) -> BlockTable:
        """Return the whole table."""
        with self._lock:
            self._load(set(range(len(self.layout.leaves))) - self._known.keys())
        pieces = [self._known[number] for number in range(len(self.layout.leaves))]
        entries = np.concatenate(pieces) if pieces else np.zeros(0, ENTRY)
        if len(entries) != self.layout.block_count:
            raise CorruptError(
                f"The block table has {len(entries)} entries for {self.layout.block_count} blocks.",
                where=self.layout.header.pack,
            )
        return BlockTable(entries, self.layout.leaves, self.layout.bases)

    def _load(self, numbers: set[int]) -> None:
        for number in sorted(numbers):
            body = self._cache and self._cache.get(bytes.fromhex(self.layout.leaves[number].checksum))
            if body:
                self._take(number, body)
        reads = list(plan_reads(map(self._frame, self._with_neighbours(numbers - self._known.keys()))))
        if len(reads) == 1:
            self._fetch(reads[0])
        elif reads:
            with ThreadPoolExecutor(READERS, "teatree-leaf") as pool:
                list(pool.map(self._fetch, reads))

    def _fetch(self, read: RangeRead) -> None:
        leaves = fetch(self._store, read)
        self.fetched_bytes += read.length
        for frame, leaf in leaves:
            self._take(frame.number, leaf)
            if self._cache:
                self._cache.put(frame.digest, leaf)

    def _with_neighbours(self, numbers: set[int]) -> set[int]:
        """Return leaves and, where one read gets them too, unknown ones of the same packs."""
        extents = self.layout.leaves
        around = set(numbers)
        if len(numbers) > READERS:  # most of the table: each is read anyway
            return around
        for number in numbers:
            wanted = extents[number]
            for other, extent in enumerate(extents):
                if other in around or other in self._known or extent.pack != wanted.pack:
                    continue
                if abs(extent.offset - wanted.offset) + extent.length <= AROUND_BYTES_MAX // 2:
                    around.add(other)
        return around

    def _frame(self, number: int) -> Frame:
        extent = self.layout.leaves[number]
        digest = bytes.fromhex(extent.checksum)
        return Frame(
            number, extent.pack, extent.offset, extent.length, leaf_bytes(self.layout, number), digest, kind="leaf"
        )

    def _take(self, number: int, body: bytes) -> None:
        if len(body) != leaf_bytes(self.layout, number):
            raise CorruptError("A leaf of the block table has another length.", where=self.layout.leaves[number].pack)
        self._known[number] = np.frombuffer(body, ENTRY)
