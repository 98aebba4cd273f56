"""The built-in functions that change rows: append, replace, upsert, update, delete."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from teatree.contracts.errors import Code, RequestError
from teatree.contracts.schema import Field, Schema
from teatree.contracts.table_info import TableInfo
from teatree.datasets.ddl import quote
from teatree.functions.arguments import Call, to_tables
from teatree.functions.handles import ROWS_VIEW, Write
from teatree.functions.tables import NO_KEY

if TYPE_CHECKING:
    import pyarrow as pa


def append(db: Write, call: Call) -> dict[str, int]:
    """Add rows to a table."""
    table = db.table(call.text("table"))
    rows = call.rows(len(table.schema))
    call.finish(takes_rows=True)
    return {"rows": insert(db, table, to_tables(rows, table.schema))}


def replace(db: Write, call: Call) -> dict[str, int]:
    """Put rows in place of all that a table holds."""
    table = db.table(call.text("table"))
    rows = call.rows(len(table.schema))
    call.finish(takes_rows=True)
    tables = to_tables(rows, table.schema)
    db.run(f"DELETE FROM {quote(table.name)}")
    db.changed(table.name)
    return {"rows": insert(db, table, tables)}


def upsert(db: Write, call: Call) -> dict[str, int]:
    """Add rows, or set the columns they name where a row with their key is there already."""
    table = db.table(call.text("table"))
    rows = call.rows(1)
    key = _key(table, call.texts("key", []))
    call.finish(takes_rows=True)
    count = 0
    tables = to_tables(rows, table.schema, fill=False)
    _refuse_repeated_keys(tables, key)
    for part in tables:
        db.run_with(part, _upsert_sql(table, part.column_names, key))
        count += part.num_rows
    db.changed(table.name)
    return {"rows": count}


def update(db: Write, call: Call) -> dict[str, int]:
    """Set columns in the rows in which all of `where` holds."""
    table = db.table(call.text("table"))
    new = call.members("set")
    where = call.members("where", {})
    call.finish()
    if not new:
        raise RequestError(Code.MISSING_ARGUMENT, "update needs at least one column to set.", where="set")
    view, names = _one_row(table, {"set": new, "where": where})
    pairs = list(zip(table.require(list(new), "set"), names["set"], strict=True))
    targets = ", ".join(f"{quote(column)} = {ROWS_VIEW}.{quote(name)}" for column, name in pairs)
    condition = _condition(table, where, names["where"])
    changed = db.run_with(view, f"UPDATE {quote(table.name)} AS t SET {targets} FROM {ROWS_VIEW} WHERE {condition}")
    db.changed(table.name)
    return {"rows": _count(changed)}


def delete(db: Write, call: Call) -> dict[str, int]:
    """Delete the rows in which all of `where` holds."""
    table = db.table(call.text("table"))
    where = call.members("where")
    call.finish()
    view, names = _one_row(table, {"where": where})
    condition = _condition(table, where, names["where"])
    changed = db.run_with(view, f"DELETE FROM {quote(table.name)} AS t USING {ROWS_VIEW} WHERE {condition}")
    db.changed(table.name)
    return {"rows": _count(changed)}


def insert(db: Write, table: TableInfo, parts: Sequence[pa.Table]) -> int:
    """Insert Arrow rows, one statement a part; columns left out take their defaults. Return the number of rows."""
    count = 0
    for part in parts:
        columns = ", ".join(quote(name) for name in part.column_names)
        db.run_with(part, f"INSERT INTO {quote(table.name)} ({columns}) SELECT {columns} FROM {ROWS_VIEW}")
        count += part.num_rows
    db.changed(table.name)
    return count


def insert_once(db: Write, table: TableInfo, rows: pa.Table) -> int:
    """Insert Arrow rows that are read once and freed: DuckDB keeps what a view names until the transaction ends."""
    import pyarrow as pa  # noqa: PLC0415

    count: int = rows.num_rows
    names, schema, batches = rows.column_names, rows.schema, rows.to_batches()
    columns = ", ".join(quote(name) for name in names)
    reader = pa.RecordBatchReader.from_batches(schema, _taken(batches))
    db.run_with(reader, f"INSERT INTO {quote(table.name)} ({columns}) SELECT {columns} FROM {ROWS_VIEW}")
    db.changed(table.name)
    return count


def _taken(batches: list[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    while batches:
        yield batches.pop(0)


def _key(table: TableInfo, key: list[str]) -> tuple[str, ...]:
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

    from teatree.datasets.nested import one_chunk, storage  # noqa: PLC0415

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


def _one_row(table: TableInfo, groups: dict[str, dict[str, Any]]) -> tuple[pa.Table, dict[str, list[str]]]:
    """Return a table of one row that holds the values of all groups, typed as their columns, and its columns' names."""
    import pyarrow as pa  # noqa: PLC0415

    arrays: list[Any] = []
    names: dict[str, list[str]] = {}
    for group, values in groups.items():
        fields = [table.schema.field(name, f"{group}.{name}") for name in values]
        _refuse_repeated_names(fields, list(values), group)
        schema = Schema(tuple(Field(f.name, f.dtype) for f in fields))
        names[group] = [f"{group}_{place}" for place in range(len(fields))]
        if fields:
            part = _one_row_part(dict(zip(schema.names, values.values(), strict=True)), schema, group)
            arrays.extend(part.column(name) for name in schema.names)
    labels = [name for group in names.values() for name in group]
    if not labels:
        return pa.table({"_": pa.array([True])}), names
    return pa.table(dict(zip(labels, arrays, strict=True))), names


def _refuse_repeated_names(fields: Sequence[Field], names: Sequence[str], group: str) -> None:
    for place, field in enumerate(fields):
        if field in fields[:place]:
            message = f"The column {field.name!r} is given twice."
            raise RequestError(Code.DUPLICATE_KEY, message, where=f"{group}.{names[place]}")


def _one_row_part(values: dict[str, Any], schema: Schema, group: str) -> pa.Table:
    try:
        return to_tables([values], schema, group)[0]
    except RequestError as e:  # the sender gave an object, not a list
        where = e.where.replace(f"{group}[0]", group, 1) if e.where else group
        raise RequestError(e.code, e.message, where=where, hint=e.hint) from None


def _condition(table: TableInfo, where: dict[str, Any], names: list[str]) -> str:
    columns = table.require(list(where), "where")
    tests = [
        f"t.{quote(column)} IS NOT DISTINCT FROM {ROWS_VIEW}.{quote(name)}"
        for column, name in zip(columns, names, strict=True)
    ]
    return " AND ".join(tests) or "true"


def _count(result: list[tuple[Any, ...]]) -> int:
    return int(result[0][0]) if result else 0
