"""A table's columns: `Field` and `Schema`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import attrs
from attrs import frozen

from teatree.contracts.errors import Code, RequestError
from teatree.contracts.names import fold
from teatree.contracts.types.dtype_parser import parse_dtype, parse_read_dtype
from teatree.contracts.types.dtypes import Dtype

__all__ = ["COLUMNS_MAX", "Dtype", "Field", "Schema", "parse_dtype", "parse_read_dtype"]

COLUMNS_MAX = 4_096
"""Columns of one table: every statement, archive and manifest names them all."""


@frozen
class Field:
    """One column."""

    name: str
    dtype: Dtype
    nullable: bool = True
    default: str | None = None
    """The default as SQL, made by `datasets.defaults` or read from DuckDB: never text that a user sent."""


@frozen
class Schema:
    """The columns of a table, in order; names differ in more than their case, as DuckDB looks them up."""

    fields: tuple[Field, ...]
    _places: dict[str, int] = attrs.field(init=False, eq=False, repr=False, factory=dict)

    def __attrs_post_init__(self) -> None:
        if len(self.fields) > COLUMNS_MAX:
            message = f"A table has at most {COLUMNS_MAX} columns, not {len(self.fields)}."
            raise RequestError(Code.BAD_ARGUMENT, message, where="columns")
        for place, column in enumerate(self.fields):
            if self._places.setdefault(fold(column.name), place) != place:
                raise RequestError(
                    Code.COLUMN_EXISTS,
                    f"The column {column.name!r} is named twice.",
                    where=f"columns[{place}].name",
                    hint="Names of columns differ in more than their case.",
                )

    def __iter__(self) -> Iterator[Field]:
        return iter(self.fields)

    def __len__(self) -> int:
        return len(self.fields)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and fold(name) in self._places

    def __getitem__(self, name: str) -> Field:
        return self.field(name)

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names, in order."""
        return tuple(column.name for column in self.fields)

    def get(self, name: str) -> Field | None:
        """Return the column of this name, in any case, or None."""
        place = self._places.get(fold(name))
        return None if place is None else self.fields[place]

    def field(self, name: str, where: str = "column") -> Field:
        """Return the column of this name, in any case; raises `unknown_column`."""
        found = self.get(name)
        if found is None:
            raise RequestError(
                Code.UNKNOWN_COLUMN,
                f"There is no column {name!r}.",
                where=where,
                hint=f"The columns are {', '.join(self.names[:20])}{', …' if len(self.fields) > 20 else ''}.",
            )
        return found

    def select(self, names: Iterable[str], where: str = "columns") -> Schema:
        """Return the schema of these columns, in this order; raises `unknown_column`."""
        return Schema(tuple(self.field(name, where) for name in names))
