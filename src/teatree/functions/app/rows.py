"""Rows that an app's function gives: lists of Python's values, Polars, pandas and Arrow, in a table's types."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import pyarrow as pa

from teatree.contracts.errors import Code, RequestError
from teatree.contracts.names import check_table
from teatree.contracts.types.schema import Schema
from teatree.datasets.arrow.types import from_arrow_schema
from teatree.datasets.dataset import Dataset
from teatree.datasets.fit import fit_table
from teatree.datasets.python_forms import members_of, python_converter
from teatree.datasets.rows import RowDecoder
from teatree.functions.handles import NamedRows


class ArrowRows(Protocol):
    """What hands its rows to Arrow: a `Dataset`, a frame of Polars or pandas, a pyarrow table."""

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        """Return the rows as a capsule of an Arrow stream."""


Rows = ArrowRows | Iterable[Any]
"""Rows: objects (dicts, instances of attrs or dataclasses), or what hands its rows to Arrow."""


def to_tables(rows: Rows, schema: Schema, *, fill: bool = True) -> list[pa.Table]:
    """Return rows as Arrow tables of exactly the schema's types, one for each set of columns that rows name.

    With `fill`, columns that are left out are null if they have no default. Raises `unknown_column`, `missing_column`,
    `type_mismatch`, `lossy_number` and their like, naming `rows[i].column`.
    """
    if _is_arrow(rows):
        return [fit_table(_arrow_table(rows, "rows"), schema, fill=fill)]
    if isinstance(rows, str | bytes | Mapping) or not isinstance(rows, Iterable):
        raise _no_rows(rows, "rows", "a list of dicts, a frame of Polars or pandas, an Arrow table or a Dataset")
    decoder = RowDecoder(schema, fill=fill, convert_by=python_converter)
    return [decoder.to_table([group]) for group in decoder.decode(_objects(rows))]


def named_rows(rows: Mapping[str, Rows] | None) -> NamedRows:
    """Return rows for a statement, by the names under which it reads them; raises `bad_name`, or what is wrong."""
    return {name: _typed(check_table(name, "tables"), given) for name, given in (rows or {}).items()}


def _typed(name: str, rows: Rows) -> pa.Table:
    where = f"tables.{name}"
    if not _is_arrow(rows):
        what = "a frame of Polars or pandas, an Arrow table or a Dataset; `Dataset.from_rows` makes one of dicts"
        raise _no_rows(rows, where, what)
    if isinstance(rows, Dataset):
        return fit_table(rows.to_arrow(), rows.schema, where)
    table = _arrow_table(rows, where)
    try:
        return fit_table(table, from_arrow_schema(table.schema), where)
    except RequestError as e:
        raise RequestError(e.code, e.message, where=where, hint=e.hint) from e


def _objects(rows: Iterable[Any]) -> list[Any]:
    """Return rows as a list of dicts; what is neither a mapping nor an object with members is left as it is."""
    found = rows if type(rows) is list else list(rows)
    if all(type(row) is dict for row in found):
        return found
    return [row if type(row) is dict else _members(row) for row in found]


def _members(row: Any) -> Any:
    members = members_of(row)
    return row if members is None else members


def _is_arrow(rows: object) -> bool:
    return hasattr(rows, "__arrow_c_stream__") or hasattr(rows, "__arrow_c_array__")


def _arrow_table(rows: Any, where: str) -> pa.Table:
    if isinstance(rows, Dataset):
        return rows.to_arrow()
    if any(str(kind) == "Object" for kind in getattr(rows, "dtypes", ())):  # Polars hands out their addresses
        raise RequestError(Code.TYPE_MISMATCH, "The frame has a column of Python's objects.", where=where)
    try:
        return rows if isinstance(rows, pa.Table) else pa.table(rows)
    except (pa.ArrowException, TypeError, ValueError, NotImplementedError) as e:
        raise RequestError(Code.BAD_ARROW, f"The rows cannot be read as Arrow data: {_line(e)}", where=where) from e


def _line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]


def _no_rows(rows: object, where: str, what: str) -> RequestError:
    return RequestError(Code.BAD_ARGUMENT, f"Rows are {what}, not {type(rows).__name__}.", where=where)


def key_columns(key: str | Sequence[str] | None) -> list[str]:
    """Return the names of a key's columns; none if there is no key."""
    if key is None or isinstance(key, str):
        return [] if key is None else [key]
    names = list(key)
    for name in names:
        if not isinstance(name, str):
            raise RequestError(Code.BAD_ARGUMENT, f"A key names columns, not {type(name).__name__}.", where="key")
    return names
