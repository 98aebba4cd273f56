"""The writer's handle: reads and changes of the model by functions, in the open transaction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Protocol

import duckdb
import pyarrow as pa
from typing_extensions import override

from teatree.contracts.errors import Code, RequestError, TeatreeError
from teatree.contracts.names import fold
from teatree.contracts.settings import LimitSettings
from teatree.contracts.types.table_info import TableInfo
from teatree.datasets.catalog_tables import read_table, read_tables
from teatree.datasets.dataset import Dataset
from teatree.datasets.ddl import quote
from teatree.datasets.results.results import exportable, plain_table, result_schema
from teatree.datasets.storage_versions import NEWEST, Release, check_readable, read_release
from teatree.engine.base import EngineHandle
from teatree.engine.duckdb.errors import translate
from teatree.engine.duckdb.guard.tree import UserTables
from teatree.engine.duckdb.guard.verdicts import Verdicts
from teatree.functions.handles import NO_ROWS, ROWS_VIEW, NamedRows, Parameters, SqlAccess


class OpenDatabase(Protocol):
    """An open read-write database, and statements in its transaction."""

    @property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """The connection in which the transaction runs."""

    def rows(self, sql: str, parameters: Parameters = ()) -> list[tuple[Any, ...]]:
        """Run one statement and return its rows; raises Teatree errors instead of DuckDB's."""


# More than ten public methods: the interface of functions (`functions/handles.py`).
class WriteHandle(EngineHandle, SqlAccess):
    """Reads and changes the user tables of one open file; remembers their schemas until one changes."""

    def __init__(self, database: OpenDatabase, limits: LimitSettings) -> None:
        self._database = database
        self._limits = limits
        self._tables: dict[str, TableInfo] | None = None
        """By folded name; never changed in place, so that a rollback can return to the committed ones."""
        self._committed: dict[str, TableInfo] | None = None
        self.statements = 0
        self.changed_tables: set[str] = set()
        """Tables changed in the open transaction."""
        self.written: set[str] = set()
        """Tables changed since the caller cleared it."""
        self._release: Release | None = None
        self._verdicts: tuple[dict[str, TableInfo], Verdicts] | None = None
        """Those for one state of the tables' schemas."""

    def begin(self) -> None:
        """Save the known schemas for a rollback of the transaction that begins."""
        self._committed = self._tables
        self.changed_tables = set()

    def forget(self) -> None:
        """Return to the saved schemas after a transaction was rolled back."""
        self._tables = self._committed
        self.changed_tables = set()

    def _known(self) -> dict[str, TableInfo]:
        if self._tables is None:
            self._tables = {fold(info.name): info for info in read_tables(self._database.connection)}
        return self._tables

    @override
    def infos(self) -> list[TableInfo]:
        return sorted(self._known().values(), key=lambda info: info.name)

    @override
    def tables(self) -> tuple[str, ...]:
        return tuple(info.name for info in self.infos())

    @override
    def find_table(self, name: str) -> TableInfo | None:
        known = self._known()
        return known.get(name) or known.get(fold(name))

    @override
    def count(self, table: str) -> int:
        return int(self._database.rows(f"SELECT count(*) FROM {quote(table)}")[0][0])

    @override
    def changed(self, table: str, *, schema: bool = False) -> None:
        self._note(table)
        if schema:
            info = read_table(self._database.connection, table)
            self._tables = {**self._known(), fold(table): info}
            self._check_readable(info)

    @property
    @override
    def tables_chars(self) -> int:
        return sum(info.text_chars for info in self._known().values())

    @override
    def dropped(self, table: str) -> None:
        self._note(table)
        self._tables = {name: info for name, info in self._known().items() if name != fold(table)}

    def _note(self, table: str) -> None:
        self.changed_tables.add(table)
        self.written.add(table)

    def _check_readable(self, info: TableInfo) -> None:
        """Check that the oldest DuckDB release that must open this file knows the types of a changed table."""
        if self._release is None:
            found = self._database.rows(
                "SELECT tags['storage_version'] FROM duckdb_databases() WHERE database_name = current_database()"
            )
            self._release = read_release(found[0][0] or "") or NEWEST
        if self._release < NEWEST:
            check_readable(info.schema, self._release, "columns")

    @override
    def run(self, sql: str, parameters: Parameters = ()) -> list[tuple[Any, ...]]:
        self.statements += 1
        return self._database.rows(sql, parameters)

    @override
    def run_with(self, rows: pa.Table | pa.RecordBatchReader, sql: str) -> list[tuple[Any, ...]]:
        self.statements += 1
        con = self._database.connection
        con.register(ROWS_VIEW, rows)
        try:
            result = con.execute(sql).fetchall()
        except duckdb.Error as e:  # the rollback that follows removes the view too
            raise translate(e) from e
        con.unregister(ROWS_VIEW)
        return result

    @override
    def statement(self, sql: str, parameters: Parameters, rows: NamedRows = NO_ROWS) -> int:
        with self._guarding():
            target = self.table(self._guard().change(sql, rows))
        self.statements += 1
        with shown_rows(self._database.connection, rows):
            result = self._database.rows(sql, _plain(parameters))
        self.changed(target.name)
        return int(result[0][0]) if result and len(result[0]) == 1 and isinstance(result[0][0], int) else len(result)

    def _guard(self) -> Verdicts:
        known = self._known()
        if self._verdicts is None or self._verdicts[0] is not known:
            ((catalog,),) = self._database.rows("SELECT current_database()")
            tables = UserTables(fold(catalog), {name: known[name].name for name in known})
            self._verdicts = known, Verdicts(self._database.connection, tables)
        return self._verdicts[1]

    @override
    def query(self, sql: str, parameters: Parameters) -> pa.Table:
        return self.dataset(sql, parameters).to_arrow()

    @override
    def dataset(self, sql: str, parameters: Parameters, rows: NamedRows = NO_ROWS) -> Dataset:
        with self._guarding():
            self._guard().query(sql, rows)
        self.statements += 1
        with shown_rows(self._database.connection, rows):
            return fetch_dataset(self._database.connection, sql, parameters, self._limits)

    @property
    @override
    def is_aborted(self) -> bool:
        try:
            self._database.rows("SELECT 1")
        except TeatreeError:
            return True
        return False

    @contextmanager
    def _guarding(self) -> Iterator[None]:
        """Count a refusal by the guard as a statement if the guard's own queries aborted the transaction."""
        try:
            yield
        except RequestError:
            self.statements += self.is_aborted
            raise


@contextmanager
def shown_rows(con: duckdb.DuckDBPyConnection, rows: NamedRows) -> Iterator[None]:
    """Let the statements of the block read rows by their names."""
    try:
        for name, table in rows.items():
            con.register(name, table)
        yield
    except duckdb.Error as e:
        raise translate(e) from e
    finally:
        for name in rows:
            with suppress(duckdb.Error):  # of an aborted transaction: its rollback removes them too
                con.unregister(name)


FETCH_ROWS = 100_000
"""Rows fetched at once: between two fetches the limit is checked."""


def fetch_rows(con: duckdb.DuckDBPyConnection, sql: str, parameters: Parameters, limits: LimitSettings) -> pa.Table:
    """Return the rows of a checked SELECT; raises `result_too_large` beyond the limits for rows and their bytes."""
    return fetch_dataset(con, sql, parameters, limits).to_arrow()


def fetch_dataset(con: duckdb.DuckDBPyConnection, sql: str, parameters: Parameters, limits: LimitSettings) -> Dataset:
    """Return the same with the exact types of their columns."""
    try:
        relation = con.sql(sql, params=_plain(parameters))
        schema = result_schema(relation)
        reader = exportable(relation, schema).to_arrow_reader(FETCH_ROWS)
    except duckdb.Error as e:
        raise translate(e) from e
    try:
        batches: list[pa.RecordBatch] = []
        rows = size_bytes = 0
        for batch in reader:
            rows += batch.num_rows
            size_bytes += batch.nbytes
            if rows > limits.query_rows_max:
                raise _result_too_large(f"{limits.query_rows_max:,} rows")
            if size_bytes > limits.rows_bytes_max:
                raise _result_too_large(f"{limits.rows_bytes_max:,} bytes")
            batches.append(batch)
        return Dataset(schema, plain_table(pa.Table.from_batches(batches, reader.schema), schema))
    except (duckdb.Error, pa.ArrowException, OSError) as e:  # errors while rows stream arrive as Arrow's
        raise translate(e) from e
    finally:
        reader.close()  # an open result would hold the transaction


def _result_too_large(limit: str) -> RequestError:
    return RequestError(
        Code.RESULT_TOO_LARGE,
        f"The result has more than {limit}.",
        where="sql",
        hint="Ask for less, or pull the version.",
    )


def _plain(parameters: Parameters) -> Sequence[Any] | dict[str, Any]:
    return dict(parameters) if isinstance(parameters, dict) else list(parameters)
