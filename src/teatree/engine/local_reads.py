"""Direct reads: guarded queries on the newest local version, any number at once, never behind a write."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa

from teatree.contracts.errors import Code, RetryError
from teatree.contracts.settings import LimitSettings
from teatree.datasets.ddl import quote_literal
from teatree.engine.archive import ArchiveSource
from teatree.engine.database import limit_temp
from teatree.engine.duckdb_errors import DamagedFileError, DamagedVersionError, translate
from teatree.engine.guard import check_query, lock_down
from teatree.engine.handle import fetch_rows
from teatree.engine.local_damage import read_from_disk
from teatree.engine.watchdog import Watchdog
from teatree.functions.handles import Parameters
from teatree.functions.sql import Question
from teatree.storage.disk import telling_unreadable


class LocalReads:
    """Answers questions on one version's file at a time; a running query keeps the file that it began with."""

    def __init__(self, limits: LimitSettings, outbox: Path) -> None:
        """`outbox` is the one folder into which our own statements may copy; queries cannot."""
        self._limits = limits
        self._outbox = outbox
        self._lock = threading.Lock()
        self._open: dict[int, _OpenVersion] = {}
        self._newest = 0

    @property
    def newest(self) -> int:
        """The version that answers now, 0 before the first."""
        return self._newest

    def in_use(self) -> set[int]:
        """Return the versions whose files this process has open."""
        with self._lock:
            return set(self._open)

    def switch(self, version: int, path: Path) -> None:
        """Answer from another file from now on."""
        opened = _OpenVersion(path, self._limits, self._outbox)
        with self._lock:
            self._open[version] = opened
            self._newest = version
            self._close_unused()

    def close(self) -> None:
        """Close what no query uses; the rest closes with its last query."""
        with self._lock:
            self._newest = 0
            self._close_unused()

    def _close_unused(self) -> None:
        for version, opened in list(self._open.items()):
            if version != self._newest and not opened.users:
                opened.close()
                del self._open[version]

    def answer(self, question: Question) -> tuple[int, pa.Table]:
        """Return the version that answered and its rows.

        Raises `sql_not_allowed`, `bad_sql`, `timed_out`, `result_too_large`; `unavailable` before the first version;
        DamagedVersionError, as all methods here do.
        """
        with self._using(self._newest) as (version, opened):
            return version, opened.answer(question.sql, question.parameters, self._limits)

    @contextmanager
    def source(self, version: int, restore: Callable[[], Path]) -> Iterator[ArchiveSource]:
        """Yield a version to copy out of: the open one, else a file of its own that `restore` makes.

        Two databases of one process cannot share a file, so a version file that reads may open is never opened here.
        Raises `unavailable` if the file of its own is damaged: it is made anew with the next try.
        """
        if version in self.in_use():
            with self._using(version) as (_, opened), opened.judging():
                yield ArchiveSource(opened.connection.cursor(), self._outbox)
            return
        try:
            alone = _OpenVersion(restore(), self._limits, self._outbox)
            try:
                with alone.judging():
                    yield ArchiveSource(alone.connection, self._outbox)
            finally:
                alone.close()
        except DamagedVersionError as e:
            raise RetryError(Code.UNAVAILABLE, f"Version {version}'s own copy is damaged: {e.message}") from e

    def read_at(self, version: int, offset: int, length: int) -> tuple[Path, bytes] | None:
        """Return a version's file and bytes of it, None if this process does not have it open any more.

        They come through the descriptor that was opened beside DuckDB's: one that is closed earlier would take the
        lock away by which others see that the file is read.
        """
        try:
            with (
                self._using(version) as (_, opened),
                telling_unreadable("A local version", opened.path, DamagedVersionError),
            ):
                return opened.path, read_from_disk(opened.file.fileno(), offset, length)
        except RetryError:
            return None

    @contextmanager
    def _using(self, version: int) -> Iterator[tuple[int, _OpenVersion]]:
        with self._lock:
            opened = self._open.get(version)
            if opened is None:
                raise RetryError(Code.UNAVAILABLE, "The model has no version to read yet.", hint="Try again shortly.")
            opened.users += 1
        try:
            yield version, opened
        finally:
            with self._lock:
                opened.users -= 1
                self._close_unused()


def answer_from(path: Path, sql: str, parameters: Parameters, limits: LimitSettings) -> pa.Table:
    """Return the rows of one query on a version's file that nothing else in this process has open."""
    opened = _OpenVersion(path, limits, None)
    try:
        return opened.answer(sql, parameters, limits)
    finally:
        opened.close()


class _OpenVersion:
    def __init__(self, path: Path, limits: LimitSettings, outbox: Path | None) -> None:
        self.users = 0
        self.path = path
        self.file = path.open("rb")
        with self.judging():
            self._open(limits, outbox)

    def close(self) -> None:
        """Close it; the descriptor last, since closing it ends DuckDB's lock too."""
        self.connection.close()
        self.file.close()

    @contextmanager
    def judging(self) -> Iterator[None]:
        """Tell damage as that of a version's file: the read-write file is another one."""
        try:
            yield
        except DamagedFileError as e:
            raise DamagedVersionError(e.message, where=str(self.path)) from e

    def _open(self, limits: LimitSettings, outbox: Path | None) -> None:
        try:
            self.connection = duckdb.connect(
                str(self.path),
                read_only=True,
                config={"threads": limits.threads, "memory_limit": f"{limits.memory_bytes_max}B"},
            )
            if outbox is not None:
                outbox.mkdir(parents=True, exist_ok=True)
                self.connection.execute(f"SET allowed_directories = [{quote_literal(str(outbox))}]")
            limit_temp(self.connection, limits)
            lock_down(self.connection)
        except duckdb.Error as e:
            self.file.close()
            raise translate(e) from e

    def answer(self, sql: str, parameters: Parameters, limits: LimitSettings) -> pa.Table:
        cursor = self.connection.cursor()
        watchdog = Watchdog(cursor.interrupt)
        try:
            check_query(sql, cursor)
            with self.judging(), watchdog.limit(limits.query_time_ms_max, "The query", "sql"):
                return fetch_rows(cursor, sql, parameters, limits)
        finally:
            watchdog.close()
            cursor.close()
