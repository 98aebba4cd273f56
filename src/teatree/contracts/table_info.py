"""`TableInfo`: a user table as it stands in a file."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from teatree.contracts.errors import Code, RequestError
from teatree.contracts.schema import Schema


@frozen
class TableInfo:
    """A table as it stands."""

    name: str
    schema: Schema
    """Empty if the table has a fault."""
    primary_key: tuple[str, ...] = ()
    fault: str | None = None
    """Why Teatree cannot describe the table, as a sentence: only `drop_table` and `restore` take such a one."""

    def require(self, columns: Sequence[str], where: str) -> tuple[str, ...]:
        """Return the columns by the names that the table gives them; raises `unknown_column`."""
        return tuple(self.schema.field(name, f"{where}.{name}").name for name in columns)

    def check_described(self) -> None:
        """Check that the table can be used; raises `table_not_described`."""
        if self.fault is not None:
            raise RequestError(
                Code.TABLE_NOT_DESCRIBED,
                f"The table {self.name!r} cannot be used: {self.fault}",
                where="table",
                hint="Drop it with drop_table, or restore a version that is older than it.",
            )
