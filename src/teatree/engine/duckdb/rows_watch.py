"""A limit on the rows that a transaction makes: neither the statement's text nor the file's size reveals their number.

DuckDB keeps uncommitted rows in memory (and in temporary files) until a row group is full, and writes full groups into
the file. Both are measured a few times a second while the statement runs, and at its end: a commit of gigabytes could
not be interrupted, and would fail beyond DuckDB's memory limit.

A measurement takes as long as inserting a row, so a short statement is not measured, and the state before it is
measured at most every `BASE_MS`: rows made since then count as its own, until it is run again and measured exactly.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf

import duckdb
from attrs import frozen

from teatree.contracts.clock import SYSTEM_CLOCK, Clock
from teatree.contracts.errors import RetryError
from teatree.engine.duckdb.errors import translate
from teatree.engine.errors import TooManyRowsError, UnsureRowsError

LOOK_MS = 100
BASE_MS = 20
"""Milliseconds for which a measurement serves as the base of the statements that follow it."""
BYTES_PER_S_MAX = 40_000_000_000
"""Bytes of rows that no statement makes faster: a short one need not be measured. An idle host exceeds 4 GB/s."""
_ASK = (
    "SELECT tag, memory_usage_bytes + temporary_storage_bytes FROM duckdb_memory()"
    " WHERE tag IN ('IN_MEMORY_TABLE', 'OVERFLOW_STRINGS', 'TRANSACTION', 'ALLOCATOR')"
)
_SHARED = "ALLOCATOR"
"""Holds texts of updated rows, and while a statement runs much else."""


@frozen
class RowBytes:
    """The bytes that rows take: in memory until they are committed, and in the file."""

    memory: int
    file: int
    shared: int = 0
    """Counts as `memory` once the statement has ended."""

    def ended(self) -> RowBytes:
        """Return the bytes after the statement has ended, when rows alone hold `shared`."""
        return RowBytes(self.memory + self.shared, self.file)

    def beyond(self, base: RowBytes, most: RowBytes) -> TooManyRowsError | None:
        """Return the error if these exceed `base` by more than `most`."""
        for found, limit in ((self.memory - base.memory, most.memory), (self.file - base.file, most.file)):
            if found > limit:
                return TooManyRowsError(found, limit)
        return None


@frozen
class _Watched:
    """A block whose rows are limited."""

    base: RowBytes
    """The bytes before it."""
    most: RowBytes
    is_sure: bool
    """Whether `base` was measured at its beginning."""
    begin_s: float
    clock: Clock

    @property
    def is_short(self) -> bool:
        """Whether it cannot have made too many rows yet."""
        return (self.clock.monotonic() - self.begin_s) * BYTES_PER_S_MAX <= min(self.most.memory, self.most.file)

    def error(self, found: RowBytes, base: RowBytes) -> RetryError | None:
        """Return the error if `found` exceeds the block's limit."""
        error = found.beyond(base, self.most)
        return error if error is None or self.is_sure else UnsureRowsError()


class RowsWatch:
    """Measures on a separate connection the bytes that the rows of a database's open transaction take."""

    def __init__(
        self,
        con: duckdb.DuckDBPyConnection,
        file_bytes: Callable[[], int],
        interrupt: Callable[[RetryError], None],
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """`interrupt` makes the statement that runs raise an error; it is called from another thread."""
        self._con = con
        self._file_bytes = file_bytes
        self._interrupt = interrupt
        self._clock = clock
        self._base: RowBytes | None = None
        """The last measurement in this transaction."""
        self._base_s = -inf
        """When it was measured, in this transaction or before."""
        self._watched: _Watched | None = None
        self._lock = threading.Lock()
        """Held during a measurement: a block does not end before its measurement."""
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="rows-watch", daemon=True)
        self._thread.start()

    def begin(self) -> None:
        """Forget the base: the rows of the last transaction are committed, or rolled back."""
        self._base = None

    @contextmanager
    def limit(self, most: RowBytes, *, exactly: bool = False) -> Iterator[None]:
        """Run the block; raises `over_limit` if the rows that it makes take more.

        Unless it is watched `exactly`, the error can be an `UnsureRowsError`.
        """
        begin_s = self._clock.monotonic()
        is_sure = exactly or (begin_s - self._base_s) * 1000 > BASE_MS
        if is_sure:
            self._base, self._base_s = self._measure(), begin_s
        base = self._base or RowBytes(0, self._file_bytes())
        watched = self._watched = _Watched(base, most, is_sure, self._clock.monotonic(), self._clock)
        try:
            yield
        finally:
            with self._lock:
                self._watched = None
        if not watched.is_short:
            error = watched.error(self._measure().ended(), base.ended())
            if error is not None:
                raise error

    def held_bytes(self) -> int:
        """Return the bytes that DuckDB still holds, beside rows, after all statements have ended."""
        return self._measure().shared

    def _watch(self) -> None:
        while not self._clock.wait(self._closed, LOOK_MS / 1000):
            with self._lock:
                if self._watched is not None and not self._watched.is_short:
                    self._look(self._watched)

    def _look(self, watched: _Watched) -> None:
        error: RetryError | None
        try:
            error = watched.error(self._measure(), watched.base)
        except RetryError as e:  # there is no memory left for the measurement
            error = e
        if error is not None:
            self._interrupt(error)

    def _measure(self) -> RowBytes:
        try:
            found: dict[str, int] = dict(self._con.execute(_ASK).fetchall())
        except (duckdb.Error, MemoryError) as e:
            raise translate(e) from e
        shared = found.pop(_SHARED, 0)
        return RowBytes(sum(found.values()), self._file_bytes(), shared)

    def close(self) -> None:
        """End the thread and close the connection."""
        self._closed.set()
        self._thread.join()
        self._con.close()
