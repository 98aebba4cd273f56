"""Loading a file of the client's machine: checked as a whole, then sent as rows in as many requests as it takes."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from teatree.client.connection import Connection
from teatree.client.model_functions import ModelFunctions
from teatree.client.model_requests import TIMEOUT_MS
from teatree.client.notice import named_error
from teatree.client.query import QueryRequest, ask_through_log
from teatree.client.sending.message import Message
from teatree.contracts.errors import Code, RequestError, TeatreeError
from teatree.contracts.names import new_id
from teatree.contracts.types.schema import Field, Schema, parse_dtype

if TYPE_CHECKING:
    import pyarrow as pa

    from teatree.client.sending.receipt import Summary
    from teatree.datasets.csv.options import CsvOptions

REQUEST_BYTES = 1_000_000
"""Bytes of one request's rows: applied quickly, and far below the usual `max_payload` even uncompressed."""
REQUEST_ROWS = 20_000
CHUNK_BYTES_MAX = 64_000_000
"""Bytes of rows that are read from the file at once."""
REQUESTS_AHEAD = 4
ID_CHARS_MAX = 56
"""Characters of a request id to which the number of each request is added."""
FileProgress = Callable[[str, int, int | None], None]
"""Called with the current step, the rows done and, once known, the rows of the file."""


@frozen
class LoadedFile:
    """A file that was loaded."""

    rows: int
    """Rows of the file."""
    summary: Summary
    """Of the requests that carried them."""


@frozen
class FileRows:
    """The rows of one file, converted to a table's types."""

    path: Path
    csv: CsvOptions | None = None
    id_prefix: str = field(factory=new_id)
    """The request ids are this and the request's number: the same file under the same ids takes effect once."""
    request_rows: int = REQUEST_ROWS
    """Rows of one request at most."""

    def guess_schema(self) -> Schema:
        """Return the columns that a table made of the file has; reads all of a CSV file."""
        from teatree.datasets.arrow.types import from_arrow_schema  # noqa: PLC0415

        first = next(self._chunks(None))
        return from_arrow_schema(first.schema)

    def check(self, schema: Schema, progress: Callable[[int], None]) -> int:
        """Convert all rows, and return their number; raises a RequestError that names the first wrong value."""
        rows = 0
        for table in self._tables(schema):
            rows += table.num_rows
            progress(rows)
        return rows

    def requests(self, schema: Schema, functions: Iterator[str], args: Mapping[str, Any]) -> Iterator[Message]:
        """Yield the requests that carry the rows, at least one, each for the next of the functions."""
        number = 0
        for number, piece in enumerate(self._request_tables(schema), 1):
            yield Message(next(functions), args, arrow=piece, request_id=f"{self.id_prefix}-{number}")

    def _request_tables(self, schema: Schema) -> Iterator[pa.Table]:
        for table in self._tables(schema):
            waiting = [table.slice(at, self.request_rows) for at in range(0, table.num_rows, self.request_rows)][::-1]
            if not waiting:
                yield table
            while waiting:
                piece = waiting.pop()
                if piece.nbytes <= REQUEST_BYTES or piece.num_rows == 1:
                    yield piece
                else:
                    middle = piece.num_rows // 2
                    waiting += [piece.slice(middle), piece.slice(0, middle)]

    def _tables(self, schema: Schema) -> Iterator[pa.Table]:
        """Yield the rows in the types of the columns that the file has; words of an ENUM as texts."""
        import pyarrow as pa  # noqa: PLC0415

        from teatree.datasets.arrow.arrays import as_elements  # noqa: PLC0415
        from teatree.datasets.arrow.nested import one_chunk  # noqa: PLC0415
        from teatree.datasets.fit import fit_table  # noqa: PLC0415

        row = 0
        for chunk in self._chunks(schema):
            fitted = fit_table(chunk, schema, "rows", row, fill=False)
            columns = [as_elements(one_chunk(column)) for column in fitted.columns]
            yield pa.Table.from_arrays(columns, names=fitted.column_names)
            row += chunk.num_rows

    def _chunks(self, schema: Schema | None) -> Iterator[pa.Table]:
        from teatree.datasets.source_rows import read_chunks, readable  # noqa: PLC0415

        with readable(self.path):
            yield from read_chunks(self.path, schema, self.csv, CHUNK_BYTES_MAX)


async def load_file(
    model: ModelFunctions, table: str, rows: FileRows, mode: str, timeout_ms: float, progress: FileProgress | None
) -> LoadedFile:
    """Send a file's rows to a table: see `Model.load_file`."""
    report = progress or (lambda *_: None)
    if len(rows.id_prefix) > ID_CHARS_MAX:
        message = f"The request id has at most {ID_CHARS_MAX} characters: each request's number follows."
        raise RequestError(Code.BAD_REQUEST_ID, message, where="request_id")
    if mode == "create":
        schema = await asyncio.to_thread(rows.guess_schema)
    else:
        schema = await table_schema(model.connection, model.name, table)
    count = await asyncio.to_thread(rows.check, schema, lambda done: report("checking", done, None))
    if mode == "create":
        columns = {column.name: str(column.dtype) for column in schema}
        await model.create_table(table, columns, request_id=f"{rows.id_prefix}-0", timeout_ms=timeout_ms)
    functions = itertools.chain(["replace" if mode == "replace" else "append"], itertools.repeat("append"))
    sent: list[int] = []

    def counted() -> Iterator[Message]:
        total = 0
        for request in rows.requests(schema, functions, {"table": table}):
            total += request.arrow.num_rows
            sent.append(total)
            yield request

    def show_progress(accepted: int, known: int) -> None:
        what, requests = ("applying", known) if accepted and sent[accepted - 1] == count else ("sending", accepted)
        report(what, sent[requests - 1] if requests else 0, count)

    summary = await model.send_many(in_a_thread(counted()), wait="done", timeout_ms=timeout_ms, progress=show_progress)
    if summary.refused:
        raise _refused(summary, sent)
    return LoadedFile(count, summary)


async def table_schema(connection: Connection, model: str, table: str) -> Schema:
    """Return a table's columns as they stand; raises `unknown_table`."""
    name = table.replace('"', '""')
    kinds_of = f'SELECT typeof(COLUMNS(t.*)) FROM (SELECT 1) LEFT JOIN (SELECT * FROM "{name}" LIMIT 0) AS t ON true'
    try:
        # Through the log: it sees all requests sent before, and is answered even if the model does not exist.
        found = (await ask_through_log(connection, model, QueryRequest(kinds_of), TIMEOUT_MS)).dataset
    except RequestError as e:
        if e.code != Code.UNKNOWN_TABLE:
            raise
        raise RequestError(  # the position in this statement is of no use to the caller
            Code.UNKNOWN_TABLE,
            f"There is no table {table!r} in {model}.",
            where="table",
            hint="`teatree models` lists the tables; mode `create` makes one of the file's columns.",
        ) from None
    (kinds,) = found.rows()
    return Schema(tuple(Field(column, parse_dtype(kind)) for column, kind in kinds.items()))


async def in_a_thread(requests: Iterator[Message], ahead: int = REQUESTS_AHEAD) -> AsyncIterator[Message]:
    """Yield requests that take long to make, as from a large file or a pipe, without blocking the event loop."""
    while chunk := await asyncio.to_thread(lambda: list(itertools.islice(requests, ahead))):
        for request in chunk:
            yield request


def _refused(summary: Summary, sent: list[int]) -> TeatreeError:
    """Return the error of a file some of whose requests were refused: that of the first one, with its rows."""
    first = min(summary.refusals, key=lambda refusal: refusal.seq)
    number = int(first.request_id.rpartition("-")[2])
    begin = sent[number - 2] if number > 1 else 0
    error = named_error(first.error)
    if summary.sent == 1:
        message = f"The file was sent as one request, which was refused; none of its rows was loaded. {error.message}"
    else:
        refused = "request was" if summary.refused == 1 else "requests were"
        others = (
            "none of the rows was loaded" if summary.refused == summary.sent else "the rows of the others were loaded"
        )
        message = (
            f"{summary.refused:,} of {summary.sent:,} {refused} refused; {others}. "
            f"The first has rows {begin + 1:,} to {sent[number - 1]:,} of the file: {error.message}"
        )
    return type(error)(error.code, message, where=error.where)
