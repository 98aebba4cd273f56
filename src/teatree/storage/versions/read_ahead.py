"""Read-ahead: which blocks a sequential reader needs next, decided from its reads so far."""

from __future__ import annotations

from cachetools import LRUCache

STREAMS_MAX = 32
"""Scans that are tracked at the same time: DuckDB's threads each read a part of a table."""


class ReadAhead:
    """Distinguishes scans from look-ups: a run of blocks is read ahead by at most its own length.

    So what is fetched in vain never exceeds what was wanted. Not safe for threads: the caller holds its lock.
    """

    def __init__(self, blocks_max: int) -> None:
        self._blocks_max = blocks_max
        self._streams: LRUCache[int, tuple[int, int]] = LRUCache(STREAMS_MAX)
        """Next block of a run: how long the run is, and up to which block it was read ahead."""

    def after(self, first: int, last: int, block_count: int) -> range:
        """Return the blocks to fetch beyond a read of `first` to `last`, none if it continues no run."""
        length, ahead = self._streams.pop(first, (0, first))
        length += last - first + 1
        run = length > last - first + 1
        # Fetched in halves: while one half is read, the other is fetched.
        window = min(length, self._blocks_max) if run else 0
        start = max(ahead, last + 1)
        end = min(last + 1 + window, block_count)
        wanted = range(start, end) if end - start > window // 2 or end == block_count else range(0)
        self._streams[last + 1] = (length, max(ahead, wanted.stop if wanted else 0))
        return wanted
