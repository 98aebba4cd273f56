"""The built-in function `load`: rows by reference, from a file or an object that the operator allowed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from teatree.contracts.errors import Code, RequestError, RetryError
from teatree.contracts.names import check_identifier, check_table
from teatree.contracts.schema import Field, Schema
from teatree.datasets.ddl import create_table_sql, quote
from teatree.functions.arguments import Call
from teatree.functions.handles import TableInfo, Write
from teatree.functions.rows import insert

if TYPE_CHECKING:
    import pyarrow as pa

MODES = ("append", "replace", "create")
CHUNK_ROWS = 250_000
"""Rows converted and inserted at once: bounds the memory of a large source."""
RETRY_WAIT_MS = 500


def load(db: Write, call: Call) -> dict[str, int]:
    """Load a Parquet, CSV or Arrow file into a table; the format is the name's ending."""
    name = check_table(call.text("table"))
    uri = call.text("uri")
    mode = call.choice("mode", MODES, "append")
    call.finish()
    deadline = time.monotonic() + call.context.limits.load_retry_ms_max / 1000
    while True:
        try:
            with call.context.sources.local_file(uri) as path:
                return {"rows": _load_file(db, name, path, mode)}
        except RetryError as e:
            if e.code is not Code.UNAVAILABLE:
                raise
            if time.monotonic() > deadline:
                raise RetryError(
                    Code.SOURCE_UNAVAILABLE,
                    f"The source stayed away: {e.message}",
                    where="uri",
                    hint="Send it again later.",
                ) from e
            time.sleep(RETRY_WAIT_MS / 1000)


def _load_file(db: Write, name: str, path: Path, mode: str) -> int:
    import pyarrow as pa  # noqa: PLC0415

    try:
        chunks = _chunks(path)
        first = next(chunks, None)
        if first is None:
            raise RequestError(Code.BAD_SOURCE, f"{path.name!r} has no columns.", where="uri")
        table = _created(db, name, first) if mode == "create" else db.table(name)
        if mode == "replace":
            db.run(f"DELETE FROM {quote(table.name)}")
        count = _insert_chunk(db, table, first, 0)
        for chunk in chunks:
            count += _insert_chunk(db, table, chunk, count)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OSError) as e:
        raise RequestError(
            Code.BAD_SOURCE, f"{path.name!r} cannot be read: {str(e).splitlines()[0][:300]}", where="uri"
        ) from e
    return count


def _insert_chunk(db: Write, table: TableInfo, chunk: pa.Table, first_row: int) -> int:
    from teatree.datasets.fit import fit_table  # noqa: PLC0415

    return insert(db, table, [fit_table(chunk, table.schema, f"rows from {first_row}")])


def _created(db: Write, name: str, sample: pa.Table) -> TableInfo:
    from teatree.datasets.arrow import from_arrow_schema  # noqa: PLC0415

    if db.find_table(name) is not None:
        raise RequestError(
            Code.TABLE_EXISTS, f"There is a table {name!r} already.", where="table", hint="Use mode append or replace."
        )
    found = from_arrow_schema(sample.schema)
    schema = Schema(tuple(Field(check_identifier(f.name, "uri"), f.dtype) for f in found))
    db.run(create_table_sql(name, schema, ()))
    db.changed(name, schema=True)
    return db.table(name)


def _chunks(path: Path) -> Iterator[pa.Table]:
    match path.suffix.lower():
        case ".parquet":
            return _parquet(path)
        case ".csv":
            return _csv(path)
        case ".arrow" | ".feather" | ".ipc":
            return _arrow(path)
    raise RequestError(Code.BAD_SOURCE, f"{path.name!r} ends in none of .parquet, .csv and .arrow.", where="uri")


def _parquet(path: Path) -> Iterator[pa.Table]:
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    with pq.ParquetFile(path) as file:
        if file.metadata.num_rows == 0:
            yield file.schema_arrow.empty_table()
        for batch in file.iter_batches(CHUNK_ROWS):
            yield pa.Table.from_batches([batch])


def _csv(path: Path) -> Iterator[pa.Table]:
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.csv as pacsv  # noqa: PLC0415

    with pacsv.open_csv(path) as reader:
        for batch in reader:
            yield pa.Table.from_batches([batch])


def _arrow(path: Path) -> Iterator[pa.Table]:
    import pyarrow as pa  # noqa: PLC0415

    with pa.memory_map(str(path)) as source:
        if source.read(6) == b"ARROW1":
            file = pa.ipc.open_file(source)
            for place in range(file.num_record_batches):
                yield _checked(pa.Table.from_batches([file.get_batch(place)]))
        else:
            source.seek(0)
            for batch in pa.ipc.open_stream(source):
                yield _checked(pa.Table.from_batches([batch]))


def _checked(table: pa.Table) -> pa.Table:
    table.validate(full=True)
    return table
