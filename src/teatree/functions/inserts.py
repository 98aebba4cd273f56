"""Arrow rows into a table: the INSERT of the functions that add rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from teatree.contracts.errors import Code, RequestError
from teatree.contracts.types.table_info import TableInfo
from teatree.datasets.ddl import quote
from teatree.functions.handles import ROWS_VIEW, Write

if TYPE_CHECKING:
    import pyarrow as pa


def insert(db: Write, table: TableInfo, parts: Sequence[pa.Table]) -> int:
    """Insert Arrow rows, one statement a part; columns left out take their defaults. Return the number of rows."""
    count = 0
    for part in parts:
        db.run_with(part, _insert_sql(table, part.column_names))
        count += part.num_rows
    db.changed(table.name)
    return count


def insert_once(db: Write, table: TableInfo, rows: pa.Table) -> int:
    """Insert Arrow rows that are read once and freed: DuckDB keeps what a view names until the transaction ends."""
    import pyarrow as pa  # noqa: PLC0415

    count: int = rows.num_rows
    names, schema, batches = rows.column_names, rows.schema, rows.to_batches()
    reader = pa.RecordBatchReader.from_batches(schema, _taken(batches))
    db.run_with(reader, _insert_sql(table, names))
    db.changed(table.name)
    return count


def _insert_sql(table: TableInfo, names: Sequence[str]) -> str:
    columns = ", ".join(quote(name) for name in names)
    return f"INSERT INTO {quote(table.name)} ({columns}) SELECT {columns} FROM {ROWS_VIEW}"


def _taken(batches: list[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    while batches:
        yield batches.pop(0)


def duplicate_key(key: str) -> RequestError:
    """Return the error for a primary key that cannot be added; `key` is written as DuckDB does, `id: 1`."""
    message = f"The primary key {key!r} is there already, or twice in the request."
    return RequestError(Code.CONSTRAINT, message, hint="Use upsert to change rows that are there.")
