"""An open version file: read-only and locked down, for guarded queries."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import duckdb
import pyarrow as pa
from attrs import frozen
from typing_extensions import override

from teatree.contracts.settings import LimitSettings
from teatree.datasets.ddl import quote_literal
from teatree.engine.base import VersionReader
from teatree.engine.duckdb.database import limit_temp
from teatree.engine.duckdb.errors import translate
from teatree.engine.duckdb.guard.guard import check_query, lock_down
from teatree.engine.duckdb.guard.live import check_live
from teatree.engine.duckdb.guard.tree import UserTables
from teatree.engine.duckdb.handle import fetch_rows
from teatree.engine.duckdb.version_access import VersionAccess
from teatree.engine.duckdb.watchdog import Watchdog
from teatree.engine.errors import DamagedFileError, DamagedVersionError
from teatree.functions.handles import Parameters

T = TypeVar("T")
ARCHIVE_MEMORY_FACTOR = 2
"""Multiple of `memory_bytes_max` for an archive: the Parquet writer buffers 2,048 rows beside those that it reads."""


@frozen
class LiveTables:
    """What a watched query reads."""

    tables: frozenset[str]
    """Folded names."""
    primary_key: tuple[str, ...]
    """That of its table, if it names one only, and once; else ()."""


class OpenVersion(VersionReader):
    """A version's file, open in a separate database; two databases of one process cannot share a file."""

    def __init__(
        self, path: Path, limits: LimitSettings, *, archive_staging: Path | None = None, temp: Path | None = None
    ) -> None:
        """`archive_staging` is the only folder into which statements may copy: such a version is for archives.

        `temp` holds DuckDB's temporary files. Without it they lie beside the file, and no other process may have the
        file open with temporary files too.
        """
        self.users = 0
        self.path = path
        self.file = path.open("rb")
        self._limits = limits
        self._archive_staging = archive_staging
        self._temp = temp
        self._lock = threading.Lock()
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._tables: UserTables | None = None
        self._access: tuple[LimitSettings, VersionAccess] | None = None

    @property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """The database, opened at its first use; raises DamagedVersionError, or `unavailable`."""
        with self._lock:
            if self._connection is None:
                with self.translating_damage():
                    self._connection = self._connect()
            return self._connection

    @override
    def interrupt(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.interrupt()

    @override
    def close(self) -> None:
        """Close it; the descriptor last, since closing it ends DuckDB's lock too."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self.file.close()

    @contextmanager
    def translating_damage(self) -> Iterator[None]:
        """Raise DamagedVersionError for DamagedFileError: this is not the read-write file."""
        try:
            yield
        except DamagedFileError as e:
            raise DamagedVersionError(e.message, where=str(self.path)) from e

    def _connect(self) -> duckdb.DuckDBPyConnection:
        limits = self._limits
        config: dict[str, str | bool | int | float | list[str]] = {
            "threads": limits.threads,
            "memory_limit": f"{limits.memory_bytes_max}B",
        }
        if self._archive_staging is not None:
            config |= {
                "memory_limit": f"{ARCHIVE_MEMORY_FACTOR * limits.memory_bytes_max}B",
                # One thread copies in the table's order; keeping an order would hold every row group twice.
                "threads": 1,
                "preserve_insertion_order": False,
            }
        if self._temp is not None:
            config["temp_directory"] = str(self._temp)
        try:
            con = duckdb.connect(str(self.path), read_only=True, config=config)
            try:
                if self._archive_staging is not None:
                    self._archive_staging.mkdir(parents=True, exist_ok=True)
                    con.execute(f"SET allowed_directories = [{quote_literal(str(self._archive_staging))}]")
                limit_temp(con, limits)
                lock_down(con)
            except BaseException:
                con.close()
                raise
        except duckdb.Error as e:
            raise translate(e) from e
        return con

    def check_live(self, sql: str) -> LiveTables:
        """Check that a query can be watched, and return what it reads; raises `sql_not_allowed`, `unknown_table`."""
        con = self.connection
        with self.translating_damage():
            self._tables = self._tables or UserTables.of(con)
            check_query(sql, con, tables=self._tables)
            read = check_live(sql, con, self._tables)
            primary_key: tuple[str, ...] = ()
            if read.references == 1:
                (folded,) = read.names
                found = con.execute(
                    "SELECT constraint_column_names FROM duckdb_constraints() WHERE constraint_type = 'PRIMARY KEY'"
                    " AND database_name = current_database() AND schema_name = 'main' AND table_name = ?",
                    [self._tables.names[folded]],
                ).fetchall()
                primary_key = tuple(found[0][0]) if found else ()
        return LiveTables(read.names, primary_key)

    def access(self, limits: LimitSettings) -> VersionAccess:
        """Return the access of functions to it, by these limits; what it has learnt of the tables is kept."""
        if self._access is None or self._access[0] != limits:
            self._access = limits, VersionAccess(self.connection, limits, self._reading)
        return self._access[1]

    def _reading(self, work: Callable[[], T]) -> T:
        with self.translating_damage():
            return work()

    @override
    def answer(self, sql: str, parameters: Parameters, limits: LimitSettings) -> pa.Table:
        con = self.connection
        with self.translating_damage():
            if self._tables is None:
                self._tables = UserTables.of(con)
            check_query(sql, con, tables=self._tables)
            return fetch_rows(con, sql, parameters, limits)


def answer_from(path: Path, sql: str, parameters: Parameters, limits: LimitSettings) -> pa.Table:
    """Return the rows of one query on a version's file that nothing else in this process has open."""
    opened = OpenVersion(path, limits)
    watchdog = Watchdog(opened.connection.interrupt)
    try:
        with watchdog.limit(limits.query_time_ms_max, "The query", "sql"):
            return opened.answer(sql, parameters, limits)
    finally:
        watchdog.close()
        opened.close()
