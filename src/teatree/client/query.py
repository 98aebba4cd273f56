"""Queries to a model: run directly, or through the log; the pages of the result are joined again."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import orjson
from attrs import frozen

from teatree.client.connection import Connection
from teatree.client.direct_read import ask
from teatree.client.notice import Notice
from teatree.client.notice_log import read_all
from teatree.client.sending.message import Message, encode, json_body
from teatree.client.sending.waiting import OutcomeWaiter, publish_until_accepted
from teatree.contracts.errors import CorruptError, RequestError
from teatree.contracts.formats.codec import parse_json
from teatree.contracts.formats.notices import Kind
from teatree.contracts.formats.requests import (
    CONTENT_ARROW,
    HEADER_CONTENT_TYPE,
    HEADER_PAGES,
    HEADER_REFS,
    HEADER_VERSION,
)

if TYPE_CHECKING:
    from teatree.datasets.dataset import Dataset

Parameters = Sequence[Any] | Mapping[str, Any] | None
"""A list for `?`, an object for `$name`."""
Format = Literal["arrow", "json"]
VERSION_WAIT_MS_MAX = 30_000
"""How long one query may wait for its version."""
FETCHES_MAX = 8
"""Pages read from the object store at the same time."""


@frozen
class QueryRequest:
    """One SELECT."""

    sql: str
    parameters: Parameters = None
    format: Format = "arrow"
    page_size: int | None = None
    """Rows of a page; None for what the model allows, since the pages are joined again."""
    min_version: int | None = None
    version: int | None = None
    """An earlier version to read; only through the log."""

    def args(self) -> dict[str, Any]:
        """Return the arguments of the function `query`, but for `min_version`."""
        args: dict[str, Any] = {"sql": self.sql, "format": self.format}
        if self.page_size is not None:
            args["page_size"] = self.page_size
        if self.parameters is not None:
            mapping = isinstance(self.parameters, Mapping)
            args["parameters"] = dict(self.parameters) if mapping else list(self.parameters)
        if self.version is not None:
            args["version"] = self.version
        return args


@frozen
class QueryReply:
    """The rows, and the version that they were read from."""

    dataset: Dataset
    version: int | None


@frozen
class _Page:
    """One page as it was received: its bytes, or the key of its object."""

    body: bytes = b""
    ref: str | None = None


async def ask_directly(connection: Connection, model: str, query: QueryRequest, timeout_ms: float) -> QueryReply:
    """Run a query on the newest version, by a direct read."""
    bus = connection.bus
    args = query.args()
    min_version = max(query.min_version or 0, connection.seen_version(model) or 0)
    if min_version:
        args |= {"min_version": min_version, "wait_ms": int(min(timeout_ms, VERSION_WAIT_MS_MAX))}
    with bus.probe.step("client.query", model=model):
        reply = await ask(bus, bus.subjects.query(model, "query"), json_body(args), timeout_ms)
    is_arrow = reply.headers.get(HEADER_CONTENT_TYPE) == CONTENT_ARROW
    refs = orjson.loads(reply.headers.get(HEADER_REFS, "[]"))
    pages = [_Page(reply.body), *(_Page(ref=item["ref"]) for item in sorted(refs, key=lambda item: int(item["page"])))]
    announced = int(reply.headers.get(HEADER_PAGES, 1))
    if len(pages) != announced:
        raise CorruptError(f"The reply announces {announced} pages but names {len(pages)}.", where=reply.subject)
    version = reply.headers.get(HEADER_VERSION)
    return QueryReply(
        await _dataset(connection, pages, is_arrow=is_arrow, where=f"query of {model}"),
        None if version is None else int(version),
    )


async def ask_through_log(connection: Connection, model: str, query: QueryRequest, timeout_ms: float) -> QueryReply:
    """Run a query in the order of the log: it sees all requests before it."""
    bus = connection.bus
    message = Message("query", query.args())
    request = encode(message, bus.subjects, model, connection.sender, size_bytes_max=bus.payload_bytes_max())
    received: dict[int, Notice] = {}

    def on_notice(notice: Notice) -> None:
        if notice.kind is Kind.PAGE:
            received[int(notice.members["page"])] = notice

    async with OutcomeWaiter(bus, model, request.request_id, connection.read_object, on_notice) as waiter:
        await publish_until_accepted(bus, request, timeout_ms)
        done = await waiter.wait(timeout_ms, request)
    count = int((done.result or {}).get("pages", 1))
    if any(number not in received for number in range(1, count + 1)):  # missed while the connection was lost
        for notice in await read_all(bus, bus.subjects.notify(model, request.request_id, Kind.PAGE)):
            on_notice(notice)
    missing = [number for number in range(1, count + 1) if number not in received]
    if missing:
        raise CorruptError(
            f"Page {missing[0]} of {count} is missing from the stream of notices.", where=request.request_id
        )
    notices = [received[number] for number in range(1, count + 1)]
    pages = [_Page(n.body or orjson.dumps(n.members), n.members.get("ref")) for n in notices]
    is_arrow = query.format == "arrow"
    read = done.version if query.version is None else query.version
    return QueryReply(await _dataset(connection, pages, is_arrow=is_arrow, where=request.request_id), read)


async def _dataset(connection: Connection, pages: Sequence[_Page], *, is_arrow: bool, where: str) -> Dataset:
    """Join pages, reading those in the object store a few at a time."""
    gate = asyncio.Semaphore(FETCHES_MAX)

    async def body_of(page: _Page) -> bytes:
        if page.ref is None:
            return page.body
        async with gate:
            return await connection.read_object(page.ref)

    bodies = await asyncio.gather(*(body_of(page) for page in pages))
    return await asyncio.to_thread(join_pages, bodies, is_arrow=is_arrow, where=where)


def join_pages(bodies: Sequence[bytes], *, is_arrow: bool, where: str) -> Dataset:
    """Return the rows of a result's pages."""
    import pyarrow as pa  # noqa: PLC0415 - 0.2 s, only to read rows

    from teatree.datasets.dataset import Dataset  # noqa: PLC0415

    if not is_arrow:
        pages = [_from_json(body, where) for body in bodies]
        return Dataset(pages[0].schema, pa.concat_tables([page.to_arrow() for page in pages]))
    try:
        return Dataset.from_arrow(pa.concat_tables([pa.ipc.open_stream(body).read_all() for body in bodies]))
    except (pa.ArrowException, OSError) as e:
        raise CorruptError(f"A page is not an Arrow stream: {e}", where=where) from e


def _from_json(body: bytes, where: str) -> Dataset:
    """Return a page's rows in the types that its columns name."""
    from teatree.contracts.types.schema import Field, Schema, parse_read_dtype  # noqa: PLC0415
    from teatree.datasets.dataset import Dataset  # noqa: PLC0415

    try:
        page = parse_json(body, where)
        schema = Schema(tuple(Field(c["name"], parse_read_dtype(c["type"], where)) for c in page["columns"]))
        return Dataset.from_rows(page["rows"], schema)
    except (RequestError, KeyError, TypeError) as e:
        raise CorruptError(f"A page is not a result of `query`: {e}", where=where) from e
