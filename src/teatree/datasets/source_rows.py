"""Rows of a file, of Parquet, CSV, Arrow or another installed format, in chunks whose memory is bounded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

from teatree.contracts.errors import Code, OperatorError, RequestError
from teatree.contracts.parts import PartGroup, load_part, part_names
from teatree.contracts.types.schema import Schema

if TYPE_CHECKING:
    import pyarrow as pa

    from teatree.datasets.csv.options import CsvOptions

_CSV_ENDINGS = (".csv", ".tsv")
CHUNK_ROWS_MAX = 250_000
"""Rows converted and inserted at once."""
CHUNK_BYTES_MAX = 64_000_000
"""Bytes of them: each is copied a few times on its way."""


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Raise errors of Arrow and the system from reading a file as `bad_source`."""
    import pyarrow as pa  # noqa: PLC0415

    try:
        yield
    except MemoryError:  # Arrow's too: that is not the file's fault
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError) as e:
        reason = (str(e).splitlines() or [type(e).__name__])[0][:300].rstrip(".")
        raise RequestError(Code.BAD_SOURCE, f"{path.name!r} cannot be read: {reason}.", where="uri") from e


Reached = Callable[[float], None]
"""Called with the part of a file whose rows were taken, 0 to 1."""


@frozen
class SourceFile:
    """A file to read, and how."""

    path: Path
    schema: Schema | None
    """The columns of the table that takes the rows, if there is one."""
    csv: CsvOptions | None
    """The options of a CSV file."""
    row_bytes_max: int
    """Bytes of one row; a format whose own pieces can be larger than memory refuses longer ones while it reads."""
    reached: Reached


def read_chunks(
    path: Path,
    schema: Schema | None,
    csv: CsvOptions | None,
    rows_bytes_max: int,
    reached: Reached = lambda _: None,
) -> Iterator[pa.Table]:
    """Yield a file's rows; its name's ending is the format. `schema`, if there is one, is that of their table.

    `csv` are the options of a CSV file; another one takes none. Raises `bad_source`, `body_too_large` for a row beyond
    `rows_bytes_max`, or what Arrow raises for a damaged file.
    """
    ending = path.suffix.lower()
    if csv is not None and ending not in _CSV_ENDINGS:
        message = f"{path.name!r} is no CSV file: options such as delimiter are for .csv and .tsv."
        raise RequestError(Code.BAD_ARGUMENT, message, where="uri")
    chunks = _format(path)(SourceFile(path, schema, csv, rows_bytes_max, reached))
    yield from _joined(piece for chunk in chunks for piece in _pieces(_checked(chunk), rows_bytes_max))


def _format(path: Path) -> Callable[[SourceFile], Iterator[pa.Table]]:
    """Return what reads a file, by its name's ending."""
    names = part_names(PartGroup.FORMATS)
    name = path.suffix.lower().removeprefix(".")
    if name not in names:
        message = f"{path.name!r} ends in none of {', '.join(f'.{known}' for known in names)}."
        raise RequestError(Code.BAD_SOURCE, message, where="uri")
    try:
        return load_part(PartGroup.FORMATS, name, "uri")
    except OperatorError as e:  # of an installed package: no reason for a manager to stop
        raise RequestError(Code.BAD_SOURCE, e.message, where="uri", hint=e.hint) from e


def _checked(chunk: pa.Table) -> pa.Table:
    chunk.validate(full=True)
    return chunk


def _joined(pieces: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Yield pieces of one schema together: what DuckDB is given in small parts makes its commit slow."""
    import pyarrow as pa  # noqa: PLC0415

    waiting: list[pa.Table] = []
    rows = size_bytes = 0
    for piece in pieces:
        rows, size_bytes = rows + piece.num_rows, size_bytes + piece.nbytes
        is_full = rows > CHUNK_ROWS_MAX or size_bytes > CHUNK_BYTES_MAX
        if waiting and (is_full or not piece.schema.equals(waiting[0].schema)):
            yield pa.concat_tables(waiting)
            waiting, rows, size_bytes = [], piece.num_rows, piece.nbytes
        waiting.append(piece)
    if waiting:
        yield pa.concat_tables(waiting)


def parquet_rows(file: SourceFile) -> Iterator[pa.Table]:
    """Yield the rows of a Parquet file."""
    from teatree.datasets.parquet_rows import read_batches  # noqa: PLC0415

    for batch, schema, part in read_batches(file.path):
        for piece in _pieces(batch, file.row_bytes_max):
            yield piece.cast(schema)
        file.reached(part)


def csv_rows(file: SourceFile) -> Iterator[pa.Table]:
    """Yield the rows of a CSV file, in the types of their table or in guessed ones."""
    from teatree.datasets.csv.file import CsvFile  # noqa: PLC0415
    from teatree.datasets.csv.options import CsvOptions  # noqa: PLC0415

    csv = CsvFile(file.path, file.csv or CsvOptions())
    yield from csv.tables(csv.guess_schema() if file.schema is None else file.schema, file.reached)


def arrow_rows(file: SourceFile) -> Iterator[pa.Table]:
    """Yield the rows of a file in Arrow's IPC format, with or without its footer."""
    import pyarrow as pa  # noqa: PLC0415

    from teatree.datasets.arrow_stream import check_batches  # noqa: PLC0415

    with pa.memory_map(str(file.path)) as source:
        whole = source.read_buffer()
        is_file = whole.slice(0, 6).to_pybytes() == b"ARROW1"
        # A file is a stream between a mark of 8 bytes and a footer.
        check_batches(whole.slice(8) if is_file else whole, file.row_bytes_max, "uri")
        if is_file:
            batches = pa.ipc.open_file(whole)
            for place in range(batches.num_record_batches):
                yield pa.Table.from_batches([batches.get_batch(place)])
                file.reached((place + 1) / batches.num_record_batches)
        else:
            stream = pa.BufferReader(whole)
            for batch in pa.ipc.open_stream(stream):
                yield pa.Table.from_batches([batch])
                file.reached(stream.tell() / whole.size)


def _pieces(chunk: pa.Table, row_bytes_max: int) -> Iterator[pa.Table]:
    """Yield a chunk in pieces of at most `CHUNK_BYTES_MAX`, each row with its own copy of every text.

    A row that takes more than `row_bytes_max` is refused.
    """
    from teatree.datasets.arrow_stream import expanded_bytes  # noqa: PLC0415

    waiting = [chunk]
    while waiting:
        piece = waiting.pop()
        size_bytes = max(piece.nbytes, expanded_bytes(piece))
        if size_bytes <= min(CHUNK_BYTES_MAX, row_bytes_max) or (piece.num_rows == 1 and size_bytes <= row_bytes_max):
            yield piece
        elif piece.num_rows <= 1:
            raise RequestError(
                Code.BODY_TOO_LARGE,
                f"One row of the source takes {size_bytes:,} bytes; the limit is {row_bytes_max:,}.",
                where="uri",
                hint="Have the model's limit raised.",
            )
        else:
            middle = piece.num_rows // 2
            waiting += (piece.slice(middle), piece.slice(0, middle))
