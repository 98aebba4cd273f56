"""A watch over the rows that a transaction makes: neither the text of a statement nor its file's size tells how many.

DuckDB keeps what is not committed in memory (and beside it, in temporary files) until a group of rows is full, and
writes full groups into the file. Both are asked for, beside the statement that makes them, a few times a second and at
its end: a commit of gigabytes could be neither interrupted nor, beyond DuckDB's memory limit, done.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import duckdb
from attrs import frozen

from teatree.contracts.errors import Code, RetryError
from teatree.engine.duckdb_errors import translate

LOOK_MS = 100
BYTES_PER_S_MAX = 4_000_000_000
"""Bytes of rows that no statement makes faster: a short one need not be measured."""
_ASK = (
    "SELECT tag, memory_usage_bytes + temporary_storage_bytes FROM duckdb_memory()"
    " WHERE tag IN ('IN_MEMORY_TABLE', 'OVERFLOW_STRINGS', 'TRANSACTION', 'ALLOCATOR')"
)
_SHARED = "ALLOCATOR"
"""Holds texts of updated rows, and while a statement runs much else."""


class TooManyRowsError(RetryError):
    """The rows that a request makes take too much, whatever else waits for the commit with them."""

    def __init__(self, found_bytes: int, bytes_max: int) -> None:
        super().__init__(
            Code.OVER_LIMIT,
            f"The request makes rows of {found_bytes:,} bytes at least; the limit is {bytes_max:,}.",
            hint="Split it, or have the model's limit raised.",
        )


@frozen
class RowBytes:
    """What rows take: in memory until they are committed, and in the file."""

    memory: int
    file: int
    shared: int = 0
    """Beside `memory` once the statement has ended."""

    def ended(self) -> RowBytes:
        """Return what the rows take when nothing else does."""
        return RowBytes(self.memory + self.shared, self.file)

    def beyond(self, base: RowBytes, most: RowBytes) -> TooManyRowsError | None:
        """Return the error if more than `most` has come to `base`."""
        for found, limit in ((self.memory - base.memory, most.memory), (self.file - base.file, most.file)):
            if found > limit:
                return TooManyRowsError(found, limit)
        return None


class RowsWatch:
    """Measures on a connection of its own what the rows of a database's open transaction take."""

    def __init__(
        self, con: duckdb.DuckDBPyConnection, file_bytes: Callable[[], int], interrupt: Callable[[RetryError], None]
    ) -> None:
        """`interrupt` makes the statement that runs raise an error; it is called from another thread."""
        self._con = con
        self._file_bytes = file_bytes
        self._interrupt = interrupt

    @contextmanager
    def limit(self, most: RowBytes) -> Iterator[None]:
        """Run the block; raises `over_limit` if the rows that it makes take more."""
        base, begin_s = self._measure(), time.monotonic()
        ended = threading.Event()
        watch = threading.Timer(LOOK_MS / 1000, self._watch, (ended, base, most))
        watch.daemon = True
        try:
            watch.start()
        except RuntimeError as e:
            raise translate(MemoryError(str(e))) from e
        try:
            yield
        finally:
            ended.set()
            watch.cancel()
            watch.join()
        if (time.monotonic() - begin_s) * BYTES_PER_S_MAX > min(most.memory, most.file):
            error = self._measure().ended().beyond(base.ended(), most)
            if error is not None:
                raise error

    def held_bytes(self) -> int:
        """Return what DuckDB holds that is neither rows nor, once all statements have ended, of any use."""
        return self._measure().shared

    def _watch(self, ended: threading.Event, base: RowBytes, most: RowBytes) -> None:
        while not ended.is_set():
            error: RetryError | None
            try:
                error = self._measure().beyond(base, most)
            except RetryError as e:  # there is no memory left to ask with
                error = e
            if error is not None:
                self._interrupt(error)
            ended.wait(LOOK_MS / 1000)

    def _measure(self) -> RowBytes:
        try:
            found: dict[str, int] = dict(self._con.execute(_ASK).fetchall())
        except (duckdb.Error, MemoryError) as e:
            raise translate(e) from e
        shared = found.pop(_SHARED, 0)
        return RowBytes(sum(found.values()), self._file_bytes(), shared)

    def close(self) -> None:
        """Close the connection."""
        self._con.close()
