"""Handles: what a function may do is the type of what it is given.

`Read` sees a version, any number at once; `Write` runs alone, inside the writer's transaction.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from attrs import frozen

from teatree.contracts.errors import Code, RequestError
from teatree.contracts.names import OWN_SCHEMA
from teatree.contracts.schema import Schema

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_VIEW = f"{OWN_SCHEMA}_rows"
"""The name under which `Write.run_with` shows rows to a statement: no user's table can have it."""

Parameters = Sequence[Any] | dict[str, Any]


@frozen
class TableInfo:
    """A table as it stands."""

    name: str
    schema: Schema
    primary_key: tuple[str, ...] = ()

    def require(self, columns: Sequence[str], where: str) -> tuple[str, ...]:
        """Return the columns by the names that the table gives them; raises `unknown_column`."""
        return tuple(self.schema.field(name, f"{where}.{name}").name for name in columns)


class Read(ABC):
    """Reads user tables."""

    @abstractmethod
    def tables(self) -> tuple[str, ...]:
        """Return the names of the user tables, sorted."""

    @abstractmethod
    def find_table(self, name: str) -> TableInfo | None:
        """Return a user table by its name, in any case; None if there is none."""

    def table(self, name: str) -> TableInfo:
        """Return a user table by its name; raises `unknown_table`."""
        found = self.find_table(name)
        if found is None:
            names = ", ".join(self.tables()[:20]) or "none yet"
            raise RequestError(
                Code.UNKNOWN_TABLE, f"There is no table {name!r}.", where="table", hint=f"The tables are: {names}."
            )
        return found

    @abstractmethod
    def query(self, sql: str, parameters: Parameters) -> pa.Table:
        """Return the rows of one guarded SELECT; raises `result_too_large` beyond the model's limit."""


class Write(Read):
    """Changes user tables, in the transaction of the request's batch."""

    @abstractmethod
    def run(self, sql: str, parameters: Parameters = ()) -> list[tuple[Any, ...]]:
        """Run one statement of our own making and return its rows."""

    @abstractmethod
    def run_with(self, rows: pa.Table | pa.RecordBatchReader, sql: str) -> list[tuple[Any, ...]]:
        """Run one statement of our own making that reads `rows` as the table `ROWS_VIEW`."""

    @abstractmethod
    def statement(self, sql: str, parameters: Parameters) -> int:
        """Run one guarded INSERT, UPDATE, DELETE or MERGE; return the number of rows changed."""

    @abstractmethod
    def changed(self, table: str, *, schema: bool = False) -> None:
        """Note that a table's rows (or its schema too) changed."""
