"""Arrow rows into a table, for the functions that add rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from teatree.contracts.errors import Code, RequestError
from teatree.contracts.types.table_info import TableInfo
from teatree.functions.handles import WriteAccess

if TYPE_CHECKING:
    import pyarrow as pa


def insert(db: WriteAccess, table: TableInfo, parts: Sequence[pa.Table]) -> int:
    """Insert Arrow rows, one statement a part; columns left out take their defaults. Return the number of rows."""
    count = 0
    for part in parts:
        db.insert(table, part)
        count += part.num_rows
    db.changed(table.name)
    return count


def insert_once(db: WriteAccess, table: TableInfo, rows: pa.Table) -> int:
    """Insert Arrow rows that are read once and freed: DuckDB keeps what a view names until the transaction ends."""
    import pyarrow as pa  # noqa: PLC0415

    count: int = rows.num_rows
    schema, batches = rows.schema, rows.to_batches()
    db.insert(table, pa.RecordBatchReader.from_batches(schema, _taken(batches)))
    return count


def _taken(batches: list[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    while batches:
        yield batches.pop(0)


def duplicate_key(key: str) -> RequestError:
    """Return the error for a primary key that cannot be added; `key` is written as DuckDB does, `id: 1`."""
    message = f"The primary key {key!r} is there already, or twice in the request."
    return RequestError(Code.CONSTRAINT, message, hint="Use upsert to change rows that are there.")
