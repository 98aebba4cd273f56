"""`teatree send`."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from teatree.cli.exits import Exit, usage
from teatree.cli.options import SENDER_DEFAULT, Common, FunctionName, ModelName, SenderCommon
from teatree.cli.output import Output
from teatree.cli.requests.argument_pairs import built_in, function_info, merged
from teatree.cli.requests.csv_flags import NO_FLAGS, CsvFlags
from teatree.cli.requests.json_args import read_given, read_rows
from teatree.cli.requests.receipts import print_receipt, print_summary
from teatree.cli.requests.request_progress import progress_shower
from teatree.cli.running import with_session

if TYPE_CHECKING:
    from teatree.client.model import Model
    from teatree.client.model_requests import Wait
    from teatree.client.sending.message import Message
    from teatree.client.sending.receipt import Receipt, Summary
    from teatree.client.session import Session

ROWS_PER_REQUEST = 1_000
BYTES_PER_REQUEST = 1_000_000
"""Size of a request, small enough to be applied quickly and to fit into the usual `max_payload`."""
COLUMN_FILES = (".csv", ".tsv", ".parquet", ".arrow", ".feather", ".ipc")
"""Endings of files whose rows are sent as Arrow."""
ID_CHARS_MAX = 56
TIMEOUT_MS = 60_000


# More than fifty lines: its options and their help.
def send(
    model: ModelName,
    function: FunctionName,
    args: str | None = None,
    /,
    *,
    file: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    rows: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    rows_per_request: int | None = None,
    no_wait: Annotated[bool, Parameter(negative="")] = False,
    id: str | None = None,
    expected_version: int | None = None,
    timeout_ms: int = TIMEOUT_MS,
    csv: CsvFlags = NO_FLAGS,
    common: SenderCommon = SENDER_DEFAULT,
    **pairs: Annotated[str, Parameter(allow_leading_hyphen=True)],
) -> int:
    """Send one request, or rows in bulk, and wait for the outcome.

    `teatree send MODEL FUNCTION --help` shows the function's parameters.

    Example: teatree send sales append '{"table": "sales", "rows": [{"id": 1, "amount": 9.5}]}'

    Example: teatree send sales append '{"table": "sales"}' --rows sales.jsonl

    Parameters
    ----------
    model
        The model's name.
    function
        A function of the model's app (`teatree functions MODEL` lists them), or a built-in one: append, upsert, update,
        delete, replace, sql, create_table, …
    args
        Its arguments: one JSON object.
    file
        Read the arguments from this file; - is standard input.
    rows
        Send the rows of this file in as many requests as needed: CSV, Parquet or Arrow by its ending, otherwise one
        JSON object a line; - is standard input.
    rows_per_request
        Rows in each of them: 1,000, or 20,000 of a CSV, Parquet or Arrow file.
    no_wait
        Return when all requests are accepted: on disk, in the log's order.
    id
        Request id: the same id again has no second effect. With --rows, the requests get ID-1, ID-2, and so on.
    expected_version
        Have it rejected as stale if another request took effect after this version.
    timeout_ms
        How long to wait for outcomes; after that, accepted requests are still applied.
    pairs
        An argument, as --name value: for a parameter that takes a text the text, else JSON.
    """
    output = Output(json=common.json)
    members = read_given(args, file)
    wait: Wait = "accepted" if no_wait else "done"
    if rows is not None:
        if expected_version is not None:
            raise usage("--expected-version cannot be combined with --rows.")
        members = merged(members, pairs, built_in(function))
        bulk = _Bulk(output, function, members, id, rows_per_request, csv.given)
        return bulk.send(common, model, rows, wait=wait, timeout_ms=timeout_ms)
    if csv.given:
        raise usage("Options of CSV files need --rows.")

    async def work(session: Session) -> Receipt:
        target = session.model(model)
        given = merged(members, pairs, await function_info(target, function, timeout_ms) if pairs else None)
        with output.progress(function, unit="%") as advance:
            return await target.send(
                function,
                given,
                request_id=id,
                wait=wait,
                expected_version=expected_version,
                timeout_ms=timeout_ms,
                on_notice=progress_shower(advance),
            )

    print_receipt(output, with_session(common, work))
    return Exit.OK


class _Bulk:
    """Rows of a file as requests of bounded size; the same file and id always give the same requests."""

    def __init__(
        self,
        output: Output,
        function: str,
        args: dict[str, Any],
        id_prefix: str | None,
        rows_max: int | None,
        csv: dict[str, Any],
    ) -> None:
        if id_prefix is not None and len(id_prefix) > ID_CHARS_MAX:
            raise usage(f"--id has at most {ID_CHARS_MAX} characters with --rows: each request's number follows.")
        if "rows" in args:
            raise usage("The rows are given twice, in the arguments and with --rows.")
        if rows_max is not None and rows_max < 1:
            raise usage("--rows-per-request is at least 1.")
        self._output = output
        self._function = function
        self._args = args
        self._id_prefix = id_prefix
        self._rows_max = rows_max
        self._csv = csv
        self.rows = 0

    def send(self, common: Common, model: str, path: str, *, wait: Wait, timeout_ms: int) -> int:
        """Send the file; return the exit code."""

        async def work(session: Session) -> Summary:
            target = session.model(model)
            with ExitStack() as stack:
                requests = (
                    await self._columns(target, Path(path))
                    if Path(path).suffix.lower() in COLUMN_FILES
                    else self._requests(stack.enter_context(_open(path)), path)
                )
                advance = stack.enter_context(self._output.progress("sending", unit=""))

                def progress(accepted: int, known: int) -> None:
                    advance(known if wait == "done" else accepted, accepted, description=f"sent {self.rows:,} rows")

                return await target.send_many(
                    in_a_thread(requests),
                    wait=wait,
                    timeout_ms=timeout_ms,
                    progress=progress,
                )

        from teatree.client.file_load import in_a_thread  # noqa: PLC0415 - loaded by a session anyway

        return print_summary(self._output, with_session(common, work), self.rows)

    async def _columns(self, model: Model, path: Path) -> Iterator[Message]:
        """Return the requests of a file of columns, which is checked first."""
        from teatree.client.file_load import REQUEST_ROWS, FileRows, table_schema  # noqa: PLC0415
        from teatree.contracts.names import new_id  # noqa: PLC0415
        from teatree.datasets.csv.options import read_csv_options  # noqa: PLC0415

        csv = read_csv_options(self._csv) if self._csv else None
        file = FileRows(path, csv, self._id_prefix or new_id(), self._rows_max or REQUEST_ROWS)
        table = self._args.get("table")
        if isinstance(table, str):
            schema = await table_schema(model.connection, model.name, table)
        else:
            schema = await asyncio.to_thread(file.guess_schema)
        with self._output.progress(f"checking {path.name}") as advance:
            self.rows = await asyncio.to_thread(file.check, schema, advance)
        return file.requests(schema, itertools.repeat(self._function), self._args)

    def _requests(self, file: IO[bytes], path: str) -> Iterator[Message]:
        if self._csv:
            raise usage("Options of CSV files are for a file whose name ends in .csv or .tsv.")
        rows_max = self._rows_max or ROWS_PER_REQUEST
        chunk: list[Any] = []
        size_bytes = 0
        number = 0
        for row, row_bytes in read_rows(file, path):
            if chunk and (len(chunk) >= rows_max or size_bytes + row_bytes > BYTES_PER_REQUEST):
                number += 1
                yield self._request(chunk, number)
                chunk, size_bytes = [], 0
            chunk.append(row)
            size_bytes += row_bytes
            self.rows += 1
        if chunk:
            yield self._request(chunk, number + 1)

    def _request(self, rows: list[Any], number: int) -> Message:
        from teatree.client.sending.message import Message  # noqa: PLC0415
        from teatree.contracts.names import new_id  # noqa: PLC0415

        request_id = new_id() if self._id_prefix is None else f"{self._id_prefix}-{number}"
        return Message(self._function, self._args, rows, request_id=request_id)


def _open(path: str) -> contextlib.AbstractContextManager[IO[bytes]]:
    if path == "-":
        return contextlib.nullcontext(sys.stdin.buffer)
    try:
        return Path(path).open("rb")
    except OSError as e:
        raise usage(f"{path} cannot be read: {e.strerror}.") from None
