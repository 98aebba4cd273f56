"""Access to a model's tables: its type limits what a function may do.

`ReadAccess` reads a version, any number at once; `WriteAccess` runs alone, inside the writer's transaction. Built-in
functions use them as they are; those of an app get a `Read` or `Write` (`functions/app/handles.py`) over them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from teatree.contracts.errors import Code, RequestError
from teatree.contracts.names import OWN_SCHEMA
from teatree.contracts.types.schema import Schema
from teatree.contracts.types.table_info import TableInfo
from teatree.datasets.ddl import create_table_sql, quote

if TYPE_CHECKING:
    import pyarrow as pa

    from teatree.datasets.dataset import Dataset

ROWS_VIEW = f"{OWN_SCHEMA}_rows"
"""The name under which `SqlAccess.run_with` shows rows to a statement: no user's table can have it."""

Parameters = Sequence[Any] | dict[str, Any]
NamedRows = Mapping[str, "pa.Table"]
"""Rows that one statement may read as tables of these names."""
NO_ROWS: NamedRows = {}


class ReadAccess(ABC):
    """Reads user tables."""

    @abstractmethod
    def tables(self) -> tuple[str, ...]:
        """Return the names of the user tables, sorted."""

    @abstractmethod
    def find_table(self, name: str) -> TableInfo | None:
        """Return a user table by its name, in any case; None if there is none. It can be one with a fault."""

    def table(self, name: str) -> TableInfo:
        """Return a user table by its name; raises `unknown_table`, or `table_not_described` for one with a fault."""
        found = self.find_table(name)
        if found is None:
            names = ", ".join(self.tables()[:20]) or "none yet"
            raise RequestError(
                Code.UNKNOWN_TABLE, f"There is no table {name!r}.", where="table", hint=f"The tables are: {names}."
            )
        found.check_described()
        return found

    @abstractmethod
    def query(self, sql: str, parameters: Parameters) -> pa.Table:
        """Return the rows of one guarded SELECT; raises `result_too_large` beyond the model's limit."""


class SqlReadAccess(ReadAccess):
    """Reads user tables by DuckDB's SQL, and rows that are given with a query."""

    @abstractmethod
    def dataset(self, sql: str, parameters: Parameters, rows: NamedRows = NO_ROWS) -> Dataset:
        """Return the rows of one guarded SELECT in their exact types.

        Raises `result_too_large` beyond the model's limit, `bad_name` for the name of `rows` that a table has.
        """


class WriteAccess(ReadAccess):
    """Changes user tables, in the transaction of the request's batch."""

    @abstractmethod
    def create_table(self, name: str, schema: Schema, primary_key: Sequence[str]) -> None:
        """Create a table; `changed` follows, which describes it."""

    @abstractmethod
    def drop_table(self, name: str) -> None:
        """Drop a table."""

    @abstractmethod
    def insert(self, table: TableInfo, rows: pa.Table | pa.RecordBatchReader) -> None:
        """Insert rows; columns that they lack take their defaults. Raises `not_null`, `constraint`."""

    @abstractmethod
    def clear(self, table: TableInfo) -> None:
        """Delete all rows of a table."""

    @abstractmethod
    def changed(self, table: str, *, schema: bool = False) -> None:
        """Note that a table's rows (or its schema too) changed; also of one that is new."""

    @property
    @abstractmethod
    def tables_chars(self) -> int:
        """About how many characters a manifest needs for all tables."""


class SqlAccess(WriteAccess, SqlReadAccess):
    """Changes user tables by DuckDB's SQL."""

    @abstractmethod
    def run(self, sql: str, parameters: Parameters = ()) -> list[tuple[Any, ...]]:
        """Run one statement of our own making and return its rows."""

    @abstractmethod
    def run_with(self, rows: pa.Table | pa.RecordBatchReader, sql: str) -> list[tuple[Any, ...]]:
        """Run one statement of our own making that reads `rows` as the table `ROWS_VIEW`."""

    @abstractmethod
    def statement(self, sql: str, parameters: Parameters, rows: NamedRows = NO_ROWS) -> int:
        """Run one guarded INSERT, UPDATE, DELETE or MERGE; return the number of rows changed."""

    @property
    @abstractmethod
    def is_aborted(self) -> bool:
        """Whether an error has ended the open transaction: nothing that it did can be kept."""

    @abstractmethod
    def dropped(self, table: str) -> None:
        """Note that a table was dropped."""

    @override
    def create_table(self, name: str, schema: Schema, primary_key: Sequence[str]) -> None:
        self.run(create_table_sql(name, schema, primary_key))

    @override
    def drop_table(self, name: str) -> None:
        self.run(f"DROP TABLE {quote(name)}")
        self.dropped(name)

    @override
    def insert(self, table: TableInfo, rows: pa.Table | pa.RecordBatchReader) -> None:
        columns = ", ".join(quote(name) for name in rows.schema.names)
        self.run_with(rows, f"INSERT INTO {quote(table.name)} ({columns}) SELECT {columns} FROM {ROWS_VIEW}")
        self.changed(table.name)

    @override
    def clear(self, table: TableInfo) -> None:
        self.run(f"DELETE FROM {quote(table.name)}")
        self.changed(table.name)
