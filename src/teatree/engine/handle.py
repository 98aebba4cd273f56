"""The writer's handle: what built-in and user functions do to the model, in the open transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import duckdb
import pyarrow as pa
from typing_extensions import override

from teatree.contracts.errors import Code, RequestError
from teatree.contracts.names import OWN_SCHEMA
from teatree.contracts.settings import LimitSettings
from teatree.datasets.ddl import quote, read_schema
from teatree.engine.database import Database
from teatree.engine.duckdb_errors import translate
from teatree.engine.guard import check_query, check_statement
from teatree.functions.handles import ROWS_VIEW, Parameters, TableInfo, Write


class WriteHandle(Write):
    """Reads and changes the user tables of one open file; remembers their schemas until one changes."""

    def __init__(self, database: Database, limits: LimitSettings) -> None:
        self._database = database
        self._limits = limits
        self._tables: dict[str, TableInfo] | None = None
        self.statements = 0
        """Statements sent to the database so far: tells whether a request has touched the transaction."""
        self.changed_tables: set[str] = set()

    def forget(self) -> None:
        """Forget what was learned in a transaction that was rolled back."""
        self._tables = None
        self.changed_tables = set()

    def _known(self) -> dict[str, TableInfo]:
        if self._tables is None:
            self._tables = {}
            for (name,) in self._database.rows(
                "SELECT table_name FROM duckdb_tables() WHERE database_name = current_database()"
                f" AND schema_name <> '{OWN_SCHEMA}' AND NOT internal ORDER BY table_name"
            ):
                schema, key = read_schema(self._database.connection, name)
                self._tables[name.lower()] = TableInfo(name, schema, key)
        return self._tables

    @override
    def tables(self) -> tuple[str, ...]:
        return tuple(sorted(info.name for info in self._known().values()))

    @override
    def find_table(self, name: str) -> TableInfo | None:
        return self._known().get(name.lower())

    def count(self, table: str) -> int:
        """Return the number of a table's rows."""
        return int(self._database.rows(f"SELECT count(*) FROM {quote(table)}")[0][0])

    @override
    def changed(self, table: str, *, schema: bool = False) -> None:
        self.changed_tables.add(table)
        if schema:
            self._tables = None

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
        except duckdb.Error as e:  # the rollback that follows takes the view away too
            raise translate(e) from e
        con.unregister(ROWS_VIEW)
        return result

    @override
    def statement(self, sql: str, parameters: Parameters) -> int:
        target = check_statement(sql, self._database.connection).table
        self.statements += 1
        result = self._database.rows(sql, _plain(parameters))
        found = self.find_table(target)
        self.changed(found.name if found else target)
        return int(result[0][0]) if result and len(result[0]) == 1 and isinstance(result[0][0], int) else len(result)

    @override
    def query(self, sql: str, parameters: Parameters) -> pa.Table:
        check_query(sql, self._database.connection)
        self.statements += 1
        return fetch_rows(self._database.connection, sql, parameters, self._limits.query_rows_max)


FETCH_ROWS = 100_000
"""Rows fetched at once: between two fetches the limit is looked at."""


def fetch_rows(con: duckdb.DuckDBPyConnection, sql: str, parameters: Parameters, rows_max: int) -> pa.Table:
    """Return the rows of a checked SELECT; raises `result_too_large` beyond `rows_max`."""
    try:
        reader = con.sql(sql, params=_plain(parameters)).to_arrow_reader(FETCH_ROWS)
        batches: list[pa.RecordBatch] = []
        count = 0
        for batch in reader:
            count += batch.num_rows
            if count > rows_max:
                raise RequestError(
                    Code.RESULT_TOO_LARGE,
                    f"The result has more than {rows_max} rows.",
                    where="sql",
                    hint="Ask for less, or pull the version.",
                )
            batches.append(batch)
        return pa.Table.from_batches(batches, reader.schema)
    except duckdb.Error as e:
        raise translate(e) from e


def _plain(parameters: Parameters) -> Sequence[Any] | dict[str, Any]:
    return dict(parameters) if isinstance(parameters, dict) else list(parameters)
