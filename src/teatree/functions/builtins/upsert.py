"""The function `upsert`: rows added, or set where their key is there already."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

from teatree.contracts.errors import Code, RequestError
from teatree.contracts.types.table_info import TableInfo
from teatree.datasets.ddl import quote
from teatree.functions.arguments import Call, to_tables
from teatree.functions.handles import ROWS_VIEW, SqlAccess
from teatree.functions.tables import NO_KEY
from teatree.functions.traits import Function, Traits

if TYPE_CHECKING:
    import pyarrow as pa


def upsert(db: SqlAccess, call: Call) -> dict[str, int]:
    """Add rows, or set the columns that they name where a row with their key is there already.

    Two rows with the same key in one request are refused.

    table: The table.
    rows: The rows; each has a value for every column of the key.
    key: The columns that identify a row, none of them NULL; the primary key if left out.
    Result: `rows`: how many were added or set.
    """
    table = db.table(call.text("table"))
    rows = call.rows(1)
    key = upsert_key(table, call.texts("key", []))
    call.finish(takes_rows=True)
    return {"rows": upsert_rows(db, table, to_tables(rows, table.schema, fill=False), key)}


def upsert_rows(db: SqlAccess, table: TableInfo, parts: Sequence[pa.Table], key: tuple[str, ...]) -> int:
    """Add or set rows of a table's types, one statement a part; return their number."""
    count = 0
    _refuse_repeated_keys(parts, key)
    for part in parts:
        db.run_with(part, _upsert_sql(table, part.column_names, key))
        count += part.num_rows
    db.changed(table.name)
    return count


def upsert_key(table: TableInfo, key: list[str]) -> tuple[str, ...]:
    """Return the columns that identify a row: those that are named, else the primary key."""
    if not key and not table.primary_key:
        raise RequestError(
            Code.MISSING_ARGUMENT, f"The table {table.name!r} has no primary key: name the 'key' columns.", where="key"
        )
    if not key:
        return table.primary_key
    columns = tuple(dict.fromkeys(table.require(key, "key")))
    for name in columns:
        if isinstance(table.schema[name].dtype, NO_KEY):
            raise RequestError(
                Code.TYPE_MISMATCH, f"A key cannot be of type {table.schema[name].dtype}.", where=f"key.{name}"
            )
    return columns


def _refuse_repeated_keys(parts: Sequence[pa.Table], key: tuple[str, ...]) -> None:
    """Refuse null keys and two rows with one key: which of them should stay is undefined."""
    seen: set[tuple[Hashable, ...]] = set()
    for part in parts:
        for name in key:
            if name not in part.column_names:
                raise RequestError(Code.MISSING_COLUMN, f"Every row needs the key column {name!r}.", where="rows")
        for place, values in enumerate(zip(*(_hashable_values(part.column(name)) for name in key), strict=True)):
            where = f"rows[{place}]" if len(parts) == 1 else "rows"
            if None in values:
                raise RequestError(Code.NOT_NULL, "A key column is null.", where=where)
            if values in seen:
                raise RequestError(Code.CONSTRAINT, "Another row of the request has the same key.", where=where)
            seen.add(values)


def _hashable_values(column: pa.ChunkedArray) -> list[Hashable]:
    """Return values that are equal where the database's are; moments as counts: Python's end with the year 9999."""
    import pyarrow as pa  # noqa: PLC0415

    from teatree.datasets.arrow.nested import one_chunk, storage  # noqa: PLC0415

    array = storage(one_chunk(column))
    if pa.types.is_temporal(array.type):
        array = array.view(pa.int32() if pa.types.is_date32(array.type) else pa.int64())
    values: list[Hashable] = array.to_pylist()
    return ["NaN" if v != v else v for v in values] if pa.types.is_floating(array.type) else values  # noqa: PLR0124


def _upsert_sql(table: TableInfo, columns: list[str], key: tuple[str, ...]) -> str:
    listed = ", ".join(quote(name) for name in columns)
    others = [name for name in columns if name not in key]
    if set(key) == set(table.primary_key):
        updates = ", ".join(f"{quote(name)} = excluded.{quote(name)}" for name in others)
        action = f"DO UPDATE SET {updates}" if others else "DO NOTHING"
        target = ", ".join(quote(name) for name in key)
        into = f"INSERT INTO {quote(table.name)} ({listed}) SELECT {listed} FROM {ROWS_VIEW}"
        return f"{into} ON CONFLICT ({target}) {action}"
    condition = " AND ".join(f"t.{quote(name)} = s.{quote(name)}" for name in key)
    matched = ", ".join(f"{quote(name)} = s.{quote(name)}" for name in others)
    then = f"WHEN MATCHED THEN UPDATE SET {matched} " if others else ""
    values = ", ".join(f"s.{quote(name)}" for name in columns)
    return (
        f"MERGE INTO {quote(table.name)} AS t USING {ROWS_VIEW} AS s ON {condition} "
        f"{then}WHEN NOT MATCHED THEN INSERT ({listed}) VALUES ({values})"
    )


FUNCTIONS = (Function("upsert", upsert, Traits(error_place="rows")),)
