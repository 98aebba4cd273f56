"""Handles: a handle's type limits what its function may do.

`Read` reads a version, any number at once; `Write` runs alone, inside the writer's transaction.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from teatree.contracts.errors import Code, RequestError
from teatree.contracts.names import OWN_SCHEMA
from teatree.contracts.types.table_info import TableInfo

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_VIEW = f"{OWN_SCHEMA}_rows"
"""The name under which `Write.run_with` shows rows to a statement: no user's table can have it."""

Parameters = Sequence[Any] | dict[str, Any]


class Read(ABC):
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
        """Note that a table's rows (or its schema too) changed; also of one that is new."""

    @property
    @abstractmethod
    def tables_chars(self) -> int:
        """About how many characters a manifest needs for all tables."""

    @abstractmethod
    def dropped(self, table: str) -> None:
        """Note that a table was dropped."""
