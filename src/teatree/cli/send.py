"""`teatree send`."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from teatree.cli.exits import Exit, usage
from teatree.cli.json_args import read_args, read_rows, read_text
from teatree.cli.options import DEFAULT, Common
from teatree.cli.output import Output, counted
from teatree.cli.receipts import print_receipt, print_summary
from teatree.cli.running import with_session

if TYPE_CHECKING:
    from teatree.client.message import Message
    from teatree.client.receipt import Receipt, Summary
    from teatree.client.session import Session

ROWS_PER_REQUEST = 1_000
BYTES_PER_REQUEST = 1_000_000
"""A request of this size is applied quickly and stays below the usual `max_payload`."""
CHUNK = 16
"""Requests read ahead."""
ID_CHARS_MAX = 56
TIMEOUT_MS = 60_000


def send(
    model: str,
    function: str,
    args: str | None = None,
    /,
    *,
    file: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    rows: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    rows_per_request: int = ROWS_PER_REQUEST,
    no_wait: Annotated[bool, Parameter(negative="")] = False,
    id: str | None = None,
    expected_version: int | None = None,
    timeout_ms: int = TIMEOUT_MS,
    common: Common = DEFAULT,
) -> int:
    """Send one request, or rows in bulk, and wait for the outcome.

    Example: teatree send sales append '{"table": "sales", "rows": [{"id": 1, "amount": 9.5}]}'

    Example: teatree send sales append '{"table": "sales"}' --rows sales.jsonl

    Parameters
    ----------
    model
        The model's name.
    function
        A built-in function: append, upsert, update, delete, replace, sql, create_table, …
    args
        Its arguments: one JSON object.
    file
        Read the arguments from this file; - is standard input.
    rows
        Send the rows of this file, one JSON object a line, in as many requests as it takes; - is standard input.
    rows_per_request
        Rows in each of them.
    no_wait
        Return when all is accepted: on disk, in the one order.
    id
        Request id: the same id again has no second effect. With --rows, the requests get ID-1, ID-2, and so on.
    expected_version
        Have it rejected as stale if another request took effect after this version.
    timeout_ms
        How long to wait for outcomes; all that is accepted is applied all the same.
    """
    output = Output(json=common.json)
    if args is not None and file is not None:
        raise usage("The arguments are given twice.", "Give them as JSON, or with --file.")
    members = read_args(read_text(file), file) if file is not None else read_args(args or "{}", "ARGS")
    wait = not no_wait
    if rows is not None:
        if expected_version is not None:
            raise usage("--expected-version is for one request, not for --rows.")
        bulk = _Bulk(output, function, members, id, rows_per_request)
        return bulk.send(common, model, rows, wait=wait, timeout_ms=timeout_ms)

    async def work(session: Session) -> Receipt:
        return await session.model(model).send(
            function,
            members,
            request_id=id,
            wait="done" if wait else "accepted",
            expected_version=expected_version,
            timeout_ms=timeout_ms,
        )

    print_receipt(output, with_session(common, work))
    return Exit.OK


class _Bulk:
    """Rows of a file as requests of bounded size; the same file and id always give the same requests."""

    def __init__(
        self, output: Output, function: str, args: dict[str, Any], id_prefix: str | None, rows_max: int
    ) -> None:
        if id_prefix is not None and len(id_prefix) > ID_CHARS_MAX:
            raise usage(f"--id has at most {ID_CHARS_MAX} characters with --rows: each request's number follows.")
        if "rows" in args:
            raise usage("The rows are given twice, in the arguments and with --rows.")
        if rows_max < 1:
            raise usage("--rows-per-request is at least 1.")
        self._output = output
        self._function = function
        self._args = args
        self._id_prefix = id_prefix
        self._rows_max = rows_max
        self.rows = 0

    def send(self, common: Common, model: str, path: str, *, wait: bool, timeout_ms: int) -> int:
        """Send the file; return the exit code."""

        async def work(session: Session) -> Summary:
            with _open(path) as file, self._output.progress("sending", unit="") as advance:

                def progress(accepted: int, known: int) -> None:
                    advance(known if wait else accepted, accepted, description=f"sent {counted(self.rows, 'row')}")

                return await session.model(model).send_many(
                    _in_a_thread(self._requests(file, path)),
                    wait="done" if wait else "accepted",
                    timeout_ms=timeout_ms,
                    progress=progress,
                )

        return print_summary(self._output, with_session(common, work), self.rows)

    def _requests(self, file: IO[bytes], path: str) -> Iterator[Message]:
        chunk: list[Any] = []
        size_bytes = 0
        number = 0
        for row, row_bytes in read_rows(file, path):
            if chunk and (len(chunk) >= self._rows_max or size_bytes + row_bytes > BYTES_PER_REQUEST):
                number += 1
                yield self._request(chunk, number)
                chunk, size_bytes = [], 0
            chunk.append(row)
            size_bytes += row_bytes
            self.rows += 1
        if chunk:
            yield self._request(chunk, number + 1)

    def _request(self, rows: list[Any], number: int) -> Message:
        from teatree.client.message import Message  # noqa: PLC0415
        from teatree.contracts.names import new_id  # noqa: PLC0415

        request_id = new_id() if self._id_prefix is None else f"{self._id_prefix}-{number}"
        return Message(self._function, self._args, rows, request_id=request_id)


async def _in_a_thread(requests: Iterator[Message]) -> AsyncIterator[Message]:
    """Yield requests that may have to be waited for, as from a pipe, without keeping the event loop."""
    while chunk := await asyncio.to_thread(lambda: list(itertools.islice(requests, CHUNK))):
        for request in chunk:
            yield request


def _open(path: str) -> contextlib.AbstractContextManager[IO[bytes]]:
    if path == "-":
        return contextlib.nullcontext(sys.stdin.buffer)
    try:
        return Path(path).open("rb")
    except OSError as e:
        raise usage(f"{path} cannot be read: {e.strerror}.") from None
