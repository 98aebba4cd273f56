"""The function `load`: rows by reference, from a file or an object that the operator allowed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from teatree.contracts.errors import Code, RequestError
from teatree.contracts.names import check_identifier, check_table
from teatree.contracts.types.schema import Field, Schema
from teatree.contracts.types.table_info import TableInfo
from teatree.datasets.source_rows import read_chunks, readable
from teatree.functions.arguments import Call
from teatree.functions.handles import WriteAccess
from teatree.functions.history import retry_while_unavailable
from teatree.functions.inserts import insert_once
from teatree.functions.tables import made
from teatree.functions.traits import Function, Traits

if TYPE_CHECKING:
    import pyarrow as pa

    from teatree.datasets.csv.options import CsvOptions

MODES = ("append", "replace", "create")


def load(db: WriteAccess, call: Call) -> dict[str, int]:
    """Load a Parquet, CSV or Arrow file that the manager reads; its name's ending is the format.

    All rows are loaded, or none. The operator allows places by
    [`TEATREE_LOAD_ROOTS`](settings.md#connections-and-places).

    table: The table; with the mode `create` a new one.
    uri: An absolute path, `file:///path` or `s3://bucket/key`.
    mode: Whether the rows are added, replace all that are there, or make a new table, whose types are the file's.
    Result: `rows`: how many were loaded.
    """
    name = check_table(call.text("table"))
    uri = call.text("uri")
    mode = call.choice("mode", MODES, "append")
    csv = call.csv_options()
    call.finish()

    def work() -> dict[str, int]:
        with call.context.sources.local_file(uri) as path:
            return {"rows": _load_file(db, call, name, path, mode, csv)}

    return retry_while_unavailable(call.context.limits, "The source is unavailable", "uri", work)


def _load_file(db: WriteAccess, call: Call, name: str, path: Path, mode: str, csv: CsvOptions | None) -> int:
    count = 0

    def reached(fraction: float) -> None:
        call.progress(fraction, f"{count:,} rows")

    with readable(path):
        known = None if mode == "create" else db.table(name)
        chunks = read_chunks(path, known.schema if known else None, csv, call.context.limits.rows_bytes_max, reached)
        first = next(chunks, None)
        if first is None:
            raise RequestError(Code.BAD_SOURCE, f"{path.name!r} has no columns.", where="uri")
        table = known or _created(db, name, first)
        if mode == "replace":
            db.clear(table)
        count += _insert_chunk(db, table, first, 0)
        for chunk in chunks:
            count += _insert_chunk(db, table, chunk, count)
    reached(1.0)  # the rows lag a little behind the file
    return count


def _insert_chunk(db: WriteAccess, table: TableInfo, chunk: pa.Table, first_row: int) -> int:
    from teatree.datasets.fit import fit_table  # noqa: PLC0415

    return insert_once(db, table, fit_table(chunk, table.schema, first_row=first_row))


def _created(db: WriteAccess, name: str, sample: pa.Table) -> TableInfo:
    from teatree.datasets.arrow.types import from_arrow_schema  # noqa: PLC0415

    if db.find_table(name) is not None:
        raise RequestError(
            Code.TABLE_EXISTS, f"There is a table {name!r} already.", where="table", hint="Use mode append or replace."
        )
    try:
        found = from_arrow_schema(sample.schema)
    except RequestError as e:  # its places are those of a schema, which was not sent
        raise RequestError(e.code, e.message, where="uri", hint=e.hint) from None
    schema = Schema(tuple(Field(check_identifier(f.name, "uri"), f.dtype) for f in found))
    db.create_table(name, schema, ())
    return made(db, name)


FUNCTIONS = (Function("load", load, Traits(alone=True, copies=True, makes_rows=True, error_place="uri")),)
