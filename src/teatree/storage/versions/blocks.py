"""Blocks fetched on demand: from memory, from the local cache, else out of packs in the store.

Concurrency: any number of threads read through one `BlockFetcher`. A block that several threads want is fetched once:
the first thread adds a future, the others wait for it. Every block that comes from a disk or the store is hashed
before it is returned. Versions share a fetcher, so blocks that did not change between two of them are fetched once.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from attrs import define, evolve
from cachetools import LRUCache

from teatree.contracts.formats.manifest import FileLayout
from teatree.storage.objects.base import ObjectStore
from teatree.storage.versions.block_cache import BlockCache
from teatree.storage.versions.frames import Frame, RangeRead, fetch, plan_reads
from teatree.storage.versions.leaves import Leaves
from teatree.storage.versions.packs import block_frame
from teatree.storage.versions.read_ahead import ReadAhead
from teatree.storage.versions.reader import HEADER_BYTES, read_extent

FETCHERS = 8
"""Range reads at the same time."""
AHEAD_READERS = 4
"""Runs of blocks that are read ahead at the same time."""


@define
class FetchStats:
    """Counts of what was fetched so far."""

    reads: int = 0
    """Range reads of the store."""
    fetched_bytes: int = 0
    """Bytes that came from the store."""
    fetched_blocks: int = 0
    cached_blocks: int = 0
    """Blocks that came from the local cache."""


class BlockFetcher:
    """Fetches blocks by their hash; shared by threads and versions."""

    def __init__(self, store: ObjectStore, cache: BlockCache | None, memory_bytes_max: int) -> None:
        self.store = store
        self.cache = cache
        self._lock = threading.Lock()
        self._memory: LRUCache[bytes, bytes] = LRUCache(memory_bytes_max, getsizeof=len)
        self._in_flight: dict[bytes, Future[bytes]] = {}
        self._fetchers = ThreadPoolExecutor(FETCHERS, "teatree-fetch")
        self._ahead = ThreadPoolExecutor(AHEAD_READERS, "teatree-ahead")
        self._stats = FetchStats()

    def stats(self) -> FetchStats:
        """Return the counts so far."""
        with self._lock:
            return evolve(self._stats)

    def read(self, wanted: Sequence[Frame]) -> list[bytes]:
        """Return the blocks, in the order asked for; raises `corrupt`, `not_found` or what the store raises."""
        found, mine = self._claim(wanted)
        self._load(mine)
        return [piece if isinstance(piece, bytes) else piece.result() for piece in found]

    def read_ahead(self, wanted: Sequence[Frame]) -> None:
        """Begin to fetch blocks that will be wanted soon; a failure is raised by the `read` of them."""
        cache = self.cache
        _, mine = self._claim([block for block in wanted if not (cache and cache.has(block.digest))])
        if mine:
            self._ahead.submit(self._load, mine)

    def add_fetched(self, size_bytes: int) -> None:
        """Count bytes that came from the store by another way."""
        with self._lock:
            self._stats.reads += 1
            self._stats.fetched_bytes += size_bytes

    def close(self) -> None:
        """End the threads after their running reads."""
        self._ahead.shutdown(cancel_futures=False)
        self._fetchers.shutdown()

    def _claim(self, wanted: Sequence[Frame]) -> tuple[list[bytes | Future[bytes]], list[Frame]]:
        """Return each block or a future of it, and the blocks that the caller now has to load."""
        found: list[bytes | Future[bytes]] = []
        mine: list[Frame] = []
        with self._lock:
            for block in wanted:
                body = self._memory.get(block.digest)
                if body is not None:
                    found.append(body)
                    continue
                future = self._in_flight.get(block.digest)
                if future is None:
                    future = self._in_flight[block.digest] = Future()
                    mine.append(block)
                found.append(future)
        return found, mine

    def _load(self, blocks: Sequence[Frame]) -> None:
        """Load claimed blocks: the future of each ends with the block or with the error."""
        try:
            reads = list(plan_reads(block for block in blocks if not self._from_cache(block)))
            if len(reads) == 1:
                self._fetch(reads[0])
            else:
                for done in [self._fetchers.submit(self._fetch, read) for read in reads]:
                    done.result()
        except BaseException as e:
            self._fail(blocks, e)
            raise

    def _from_cache(self, block: Frame) -> bool:
        body = self.cache and self.cache.get(block.digest)
        if not body or len(body) != block.size_bytes:
            return False
        self._deliver(block, body, fetched=False)
        return True

    def _fetch(self, read: RangeRead) -> None:
        try:
            pieces = fetch(self.store, read)
            self.add_fetched(read.length)
            for block, piece in pieces:
                self._deliver(block, piece, fetched=True)
                if self.cache:
                    self.cache.put(block.digest, piece)
        except BaseException as e:
            self._fail(read.frames, e)
            raise

    def _deliver(self, block: Frame, body: bytes, *, fetched: bool) -> None:
        with self._lock:
            future = self._in_flight.pop(block.digest, None)
            if len(body) <= self._memory.maxsize:
                self._memory[block.digest] = body
            if fetched:
                self._stats.fetched_blocks += 1
            else:
                self._stats.cached_blocks += 1
        if future is not None:
            future.set_result(body)

    def _fail(self, blocks: Sequence[Frame], error: BaseException) -> None:
        with self._lock:
            futures = [self._in_flight.pop(block.digest, None) for block in blocks]
        for future in futures:
            if future is not None:
                future.set_exception(error)


class VersionFile:
    """One version's DuckDB file, read at any offset without a local copy. Safe for threads."""

    def __init__(self, fetcher: BlockFetcher, layout: FileLayout, ahead_bytes_max: int) -> None:
        self.layout = layout
        self._fetcher = fetcher
        self._leaves = Leaves(fetcher.store, layout, fetcher.cache)
        self._lock = threading.Lock()
        self._ahead = ReadAhead(ahead_bytes_max // layout.block_bytes)
        self._header: bytes | None = None

    @property
    def size_bytes(self) -> int:
        """Size of the whole file."""
        return self.layout.size_bytes

    def read(self, offset: int, length: int) -> bytes:
        """Return the bytes from `offset` on, fewer than `length` only at the end of the file."""
        end = min(offset + length, self.size_bytes)
        pieces: list[bytes] = []
        if offset < min(HEADER_BYTES, end):
            pieces.append(self._read_header()[offset : min(end, HEADER_BYTES)])
        if end > HEADER_BYTES:
            size = self.layout.block_bytes
            start = max(offset, HEADER_BYTES) - HEADER_BYTES
            stop = end - HEADER_BYTES
            first, last = start // size, (stop - 1) // size
            blocks = self._read_blocks(first, last)
            blocks[-1] = blocks[-1][: stop - last * size]
            blocks[0] = blocks[0][start - first * size :]
            pieces += blocks
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _read_header(self) -> bytes:
        if self._header is None:
            extent, cache = self.layout.header, self._fetcher.cache
            header = cache.get(bytes.fromhex(extent.checksum)) if cache else None
            if header is None or len(header) != HEADER_BYTES:
                header = read_extent(self._fetcher.store, extent, HEADER_BYTES)
                self._fetcher.add_fetched(extent.length)
                if cache:
                    cache.put(bytes.fromhex(extent.checksum), header)
            self._header = header
        return self._header

    def _read_blocks(self, first: int, last: int) -> list[bytes]:
        with self._lock:
            ahead = self._ahead.after(first, last, self.layout.block_count)
        wanted = self._wanted(range(first, last + 1))
        if ahead:
            self._fetcher.read_ahead(self._wanted(ahead))
        return self._fetcher.read(wanted)

    def _wanted(self, numbers: range) -> list[Frame]:
        fetched_before = self._leaves.fetched_bytes
        entries: dict[int, Any] = self._leaves.entries(numbers)
        if self._leaves.fetched_bytes != fetched_before:
            self._fetcher.add_fetched(self._leaves.fetched_bytes - fetched_before)
        return [
            block_frame(number, entry, self.layout.bases, self.layout.block_bytes) for number, entry in entries.items()
        ]
