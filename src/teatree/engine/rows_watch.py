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
_TAGS = ("IN_MEMORY_TABLE", "OVERFLOW_STRINGS", "TRANSACTION")
_ASK = (
    "SELECT coalesce(sum(memory_usage_bytes + temporary_storage_bytes), 0)::BIGINT FROM duckdb_memory()"
    f" WHERE tag IN {_TAGS}"
)


@frozen
class RowBytes:
    """What rows take: in memory until they are committed, and in the file."""

    memory: int
    file: int

    def beyond(self, base: RowBytes, most: RowBytes) -> RetryError | None:
        """Return the error if more than `most` has come to `base`."""
        for found, limit in ((self.memory - base.memory, most.memory), (self.file - base.file, most.file)):
            if found > limit:
                return RetryError(
                    Code.OVER_LIMIT,
                    f"The request makes rows of {found:,} bytes at least; the limit is {limit:,}.",
                    hint="Split it, or have the model's limit raised.",
                )
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
        watch.start()
        try:
            yield
        finally:
            ended.set()
            watch.cancel()
            watch.join()
        error = self._measure().beyond(base, most) if time.monotonic() - begin_s > LOOK_MS / 2000 else None
        if error is not None:
            raise error

    def _watch(self, ended: threading.Event, base: RowBytes, most: RowBytes) -> None:
        while not ended.is_set():
            try:
                error = self._measure().beyond(base, most)
            except RetryError as e:  # there is no memory left to ask with
                error = e
            if error is not None:
                self._interrupt(error)
            ended.wait(LOOK_MS / 1000)

    def _measure(self) -> RowBytes:
        try:
            row = self._con.execute(_ASK).fetchone()
        except (duckdb.Error, MemoryError) as e:
            raise translate(e) from e
        return RowBytes(int(row[0]) if row else 0, self._file_bytes())

    def close(self) -> None:
        """Close the connection."""
        self._con.close()
