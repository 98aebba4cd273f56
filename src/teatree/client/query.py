"""Queries to a model: run directly, or through the log; the pages of the result are joined again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from attrs import frozen

from teatree.client.connection import Connection
from teatree.client.direct_read import ask
from teatree.client.pages import rows_of_answer, rows_of_reply, send_for_pages
from teatree.client.sending.message import Message, encode, json_body
from teatree.contracts.formats.requests import HEADER_VERSION
from teatree.messaging.message import ReceivedMessage

if TYPE_CHECKING:
    from teatree.datasets.dataset import Dataset

Parameters = Sequence[Any] | Mapping[str, Any] | None
"""A list for `?`, an object for `$name`."""
Format = Literal["arrow", "json"]
VERSION_WAIT_MS_MAX = 30_000
"""How long one query may wait for its version."""


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


async def ask_directly(connection: Connection, model: str, query: QueryRequest, timeout_ms: float) -> QueryReply:
    """Run a query on the newest version, by a direct read."""
    bus = connection.bus
    args = query.args() | version_args(connection, model, query.min_version, timeout_ms)
    with bus.probe.step("client.query", model=model):
        reply = await ask(bus, bus.subjects.query(model, "query"), json_body(args), timeout_ms)
    return QueryReply(await rows_of_reply(connection, reply, f"query of {model}"), version_of(reply))


def version_args(connection: Connection, model: str, min_version: int | None, timeout_ms: float) -> dict[str, int]:
    """Return the arguments of a direct read that make it wait for a version, or for those that this session saw."""
    waited = max(min_version or 0, connection.seen_version(model) or 0)
    return {"min_version": waited, "wait_ms": int(min(timeout_ms, VERSION_WAIT_MS_MAX))} if waited else {}


def version_of(reply: ReceivedMessage) -> int | None:
    """Return the version that a direct read was answered from."""
    version = reply.headers.get(HEADER_VERSION)
    return None if version is None else int(version)


async def ask_through_log(connection: Connection, model: str, query: QueryRequest, timeout_ms: float) -> QueryReply:
    """Run a query in the order of the log: it sees all requests before it."""
    bus = connection.bus
    message = Message("query", query.args())
    request = encode(message, bus.subjects, model, connection.sender, size_bytes_max=bus.payload_bytes_max())
    answer = await send_for_pages(connection, model, request, timeout_ms)
    read = answer.done.version if query.version is None else query.version
    return QueryReply(await rows_of_answer(connection, model, request.request_id, answer), read)
