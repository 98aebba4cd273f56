"""Rows of a Parquet, CSV or Arrow file, in chunks whose memory is bounded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from teatree.contracts.dtypes import Bit, Decimal, Dtype, Enum, Integer, Json, TimeTz, Uuid, Varchar
from teatree.contracts.errors import Code, RequestError
from teatree.contracts.schema import Schema
from teatree.contracts.settings import LimitSettings

if TYPE_CHECKING:
    import pyarrow as pa

CHUNK_ROWS_MAX = 250_000
"""Rows converted and inserted at once."""
CHUNK_VALUES_MAX = 32_000_000
"""Values of all columns in them."""


def read_chunks(path: Path, schema: Schema | None, limits: LimitSettings) -> Iterator[pa.Table]:
    """Yield a file's rows; its format is the name's ending. `schema`, if there is one, is the table's they are for.

    Raises `bad_source`, `body_too_large` for a row beyond `rows_bytes_max`, or what Arrow raises for a damaged file.
    """
    match path.suffix.lower():
        case ".parquet":
            chunks = _parquet(path, limits)
        case ".csv":
            chunks = _csv(path, schema)
        case ".arrow" | ".feather" | ".ipc":
            chunks = _arrow(path, limits)
        case _:
            message = f"{path.name!r} ends in none of .parquet, .csv and .arrow."
            raise RequestError(Code.BAD_SOURCE, message, where="uri")
    for chunk in chunks:
        chunk.validate(full=True)
        yield from _pieces(chunk, limits.rows_bytes_max)


def _parquet(path: Path, limits: LimitSettings) -> Iterator[pa.Table]:
    """Read texts as dictionaries first: a small file can hold one long text that millions of rows name."""
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    with pq.ParquetFile(path) as file:
        schema = file.schema_arrow
    texts = [f.name for f in schema if f.type in (pa.string(), pa.binary(), pa.large_string(), pa.large_binary())]
    with pq.ParquetFile(path, read_dictionary=texts) as file:
        if file.metadata.num_rows == 0:
            yield schema.empty_table()
        rows = max(1, min(CHUNK_ROWS_MAX, CHUNK_VALUES_MAX // max(1, len(schema))))
        for batch in file.iter_batches(rows):
            for piece in _pieces(pa.Table.from_batches([batch]), limits.rows_bytes_max):
                yield piece.cast(schema)


def _csv(path: Path, schema: Schema | None) -> Iterator[pa.Table]:
    """Read columns whose values a guess would change (007, NaN, digits beyond a double) as what the table holds.

    An empty field is null, and "" is the empty text; nothing else is null.
    """
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.csv as pacsv  # noqa: PLC0415

    with pacsv.open_csv(path) as reader:
        names = reader.schema.names
    columns = {name: schema.get(name) for name in names} if schema else {}
    types = {name: _csv_type(column.dtype) for name, column in columns.items() if column}
    options = pacsv.ConvertOptions(
        column_types={name: arrow for name, arrow in types.items() if arrow is not None},
        null_values=[""],
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
    )
    with pacsv.open_csv(path, convert_options=options) as reader:
        for batch in reader:
            yield pa.Table.from_batches([batch])


def _csv_type(dtype: Dtype) -> pa.DataType | None:
    """Return the type as which a column's text is read, or None where what the text looks like will do."""
    import pyarrow as pa  # noqa: PLC0415

    match dtype:
        case Varchar() | Enum() | Json() | Uuid() | Bit() | TimeTz() | Integer(bits=128):
            return pa.string()
        case Integer(bits=64, signed=False):
            return pa.uint64()
        case Decimal(precision=precision, scale=scale):
            return pa.decimal128(precision, scale)
        case _:
            return None


def _arrow(path: Path, limits: LimitSettings) -> Iterator[pa.Table]:
    import pyarrow as pa  # noqa: PLC0415

    from teatree.datasets.arrow_stream import check_batches  # noqa: PLC0415

    with pa.memory_map(str(path)) as source:
        whole = source.read_buffer()
        is_file = whole.slice(0, 6).to_pybytes() == b"ARROW1"
        # A file is a stream between a mark of 8 bytes and a footer.
        check_batches(whole.slice(8) if is_file else whole, limits.rows_bytes_max, "uri")
        if is_file:
            file = pa.ipc.open_file(whole)
            for place in range(file.num_record_batches):
                yield pa.Table.from_batches([file.get_batch(place)])
        else:
            for batch in pa.ipc.open_stream(whole):
                yield pa.Table.from_batches([batch])


def _pieces(chunk: pa.Table, bytes_max: int) -> Iterator[pa.Table]:
    """Yield a chunk in pieces whose rows take at most `bytes_max`, each with its own copy of every text."""
    from teatree.datasets.arrow_stream import expanded_bytes  # noqa: PLC0415

    waiting = [chunk]
    while waiting:
        piece = waiting.pop()
        size_bytes = max(piece.nbytes, expanded_bytes(piece))
        if size_bytes <= bytes_max:
            yield piece
        elif piece.num_rows <= 1:
            raise RequestError(
                Code.BODY_TOO_LARGE,
                f"One row of the source takes {size_bytes:,} bytes; the limit is {bytes_max:,}.",
                where="uri",
                hint="Have the model's limit raised.",
            )
        else:
            middle = piece.num_rows // 2
            waiting += (piece.slice(middle), piece.slice(0, middle))
