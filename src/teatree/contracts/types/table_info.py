"""`TableInfo`: the description of a user table in a file."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
from attrs import frozen

from teatree.contracts.errors import Code, RequestError
from teatree.contracts.types.schema import Schema

_COLUMN_CHARS = 60
"""Characters of a column in a manifest beside its own texts."""


@frozen
class TableInfo:
    """One user table."""

    name: str
    schema: Schema
    """Empty if the table has a fault."""
    primary_key: tuple[str, ...] = ()
    fault: str | None = None
    """Why Teatree cannot describe the table, as a sentence: only `drop_table` and `restore` accept it."""

    text_chars: int = attrs.field(init=False, eq=False, repr=False, default=0)
    """Characters that a manifest needs for it, about."""

    def __attrs_post_init__(self) -> None:
        columns = (len(c.name) + len(str(c.dtype)) + len(c.default or "") + _COLUMN_CHARS for c in self.schema)
        object.__setattr__(self, "text_chars", sum(columns))

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
