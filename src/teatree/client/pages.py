"""The pages of an answer, of a direct read or from the log, joined again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

import orjson
from attrs import frozen

from teatree.client.connection import Connection
from teatree.client.notice import Notice
from teatree.client.notice_log import read_all
from teatree.client.sending.message import Encoded
from teatree.client.sending.waiting import OnNotice, OutcomeWaiter, publish_until_accepted
from teatree.contracts.errors import CorruptError, RequestError
from teatree.contracts.formats.codec import parse_json
from teatree.contracts.formats.notices import Kind
from teatree.contracts.formats.requests import CONTENT_ARROW, HEADER_CONTENT_TYPE, HEADER_PAGES, HEADER_REFS
from teatree.messaging.message import ReceivedMessage

if TYPE_CHECKING:
    from teatree.datasets.dataset import Dataset

FETCHES_MAX = 8
"""Pages read from the object store at the same time."""


@frozen
class ReceivedPage:
    """One page as it was received: its bytes, or the key of its object."""

    body: bytes = b""
    ref: str | None = None


@frozen
class LogAnswer:
    """The outcome of a request that may have rows: they came in notices before it."""

    done: Notice
    pages: dict[int, Notice]
    """The notices of the pages that were received, by number."""


async def send_for_pages(
    connection: Connection, model: str, request: Encoded, timeout_ms: float, on_notice: OnNotice | None = None
) -> LogAnswer:
    """Publish a request and wait until it is done; raises the outcome's error as `send` does."""
    received: dict[int, Notice] = {}

    def on_any(notice: Notice) -> None:
        if notice.kind is Kind.PAGE:
            received[int(notice.members["page"])] = notice
        elif on_notice is not None:
            on_notice(notice)

    bus = connection.bus
    async with OutcomeWaiter(bus, model, request.request_id, connection.read_object, on_any) as waiter:
        await publish_until_accepted(bus, request, timeout_ms)
        done = await waiter.wait(timeout_ms, request)
    return LogAnswer(done, received)


async def missed_pages(connection: Connection, model: str, request_id: str) -> dict[int, Notice]:
    """Return the notices of a request's pages that the stream still holds, by number."""
    bus = connection.bus
    notices = await read_all(bus, bus.subjects.notify(model, request_id, Kind.PAGE))
    return {int(notice.members["page"]): notice for notice in notices}


async def rows_of_answer(connection: Connection, model: str, request_id: str, answer: LogAnswer) -> Dataset:
    """Return the rows of an answer from the log; pages missed while the connection was lost are read again."""
    received = answer.pages
    count = int((answer.done.result or {}).get("pages", 1))
    if any(number not in received for number in range(1, count + 1)):
        received = {**received, **await missed_pages(connection, model, request_id)}
    missing = [number for number in range(1, count + 1) if number not in received]
    if missing:
        raise CorruptError(f"Page {missing[0]} of {count} is missing from the stream of notices.", where=request_id)
    notices = [received[number] for number in range(1, count + 1)]
    is_arrow = bool(notices[0].body) or notices[0].members.get("format") == "arrow"
    pages = [ReceivedPage(n.body or orjson.dumps(n.members), n.members.get("ref")) for n in notices]
    return await _dataset(connection, pages, is_arrow=is_arrow, where=request_id)


async def rows_of_reply(connection: Connection, reply: ReceivedMessage, where: str) -> Dataset:
    """Return the rows of the reply to a direct read."""
    is_arrow = reply.headers.get(HEADER_CONTENT_TYPE) == CONTENT_ARROW
    refs = orjson.loads(reply.headers.get(HEADER_REFS, "[]"))
    further = [ReceivedPage(ref=item["ref"]) for item in sorted(refs, key=lambda item: int(item["page"]))]
    pages = [ReceivedPage(reply.body), *further]
    announced = int(reply.headers.get(HEADER_PAGES, 1))
    if len(pages) != announced:
        raise CorruptError(f"The reply announces {announced} pages but names {len(pages)}.", where=reply.subject)
    return await _dataset(connection, pages, is_arrow=is_arrow, where=where)


async def _dataset(connection: Connection, pages: Sequence[ReceivedPage], *, is_arrow: bool, where: str) -> Dataset:
    """Join pages, reading those in the object store a few at a time."""
    gate = asyncio.Semaphore(FETCHES_MAX)

    async def body_of(page: ReceivedPage) -> bytes:
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
