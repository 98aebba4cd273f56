"""Requests to a model: a single one, many in bulk, and the built-in functions."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from typing_extensions import Unpack

from teatree.client import query as queries
from teatree.client.bulk import BulkOptions, BulkProgress, BulkSender, Item
from teatree.client.connection import Connection
from teatree.client.message import Encoded, Message, check_size, encode
from teatree.client.receipt import Receipt, Summary
from teatree.client.request_args import given, listed, plain, table_args
from teatree.client.waiting import OnNotice, OutcomeWaiter, publish_until_accepted
from teatree.contracts.errors import Code, RequestError
from teatree.contracts.names import check_model, check_request_id, new_id
from teatree.contracts.requests import HEADER_ARGS, HEADER_CONTENT_TYPE, HEADER_REQUEST_ID

if TYPE_CHECKING:
    from teatree.client.notice import Notice
    from teatree.storage.dead_letters import DeadLetter

TIMEOUT_MS = 60_000
"""Default of how long an outcome or a reply is waited for."""
BULK_SILENCE_MS = 120_000

Wait = Literal["accepted", "done"]
Rows = Any
"""A list of objects, or anything with `__arrow_c_stream__`."""


class SendOptions(TypedDict, total=False):
    """Options of every request; see `Model.send`."""

    request_id: str | None
    wait: Wait
    expected_version: int | None
    timeout_ms: float
    on_notice: OnNotice | None


class ModelRequests:
    """The requests of one model of an installation; it need not exist yet."""

    def __init__(self, connection: Connection, name: str) -> None:
        self.connection = connection
        """What it is reached through: the session that it is a model of."""
        self.name = check_model(name)

    async def send(
        self,
        function: str,
        args: Mapping[str, Any] | None = None,
        *,
        rows: Sequence[Mapping[str, Any]] | None = None,
        arrow: Any = None,
        request_id: str | None = None,
        group: str | None = None,
        wait: Wait = "done",
        expected_version: int | None = None,
        timeout_ms: float = TIMEOUT_MS,
        on_notice: OnNotice | None = None,
    ) -> Receipt:
        """Send one request and wait until it is `done`, or only `accepted` (on disk, in the log's order).

        It has one effect under its `request_id` (a fresh one if left out), however often it is sent. `rows` are sent as
        JSON, `arrow` (a pyarrow table, a Polars frame, …) as an Arrow stream. With `expected_version` it is rejected as
        stale if another request took effect after that version. `on_notice` receives `started` and `progress` too.

        Raises the outcome's error: `RequestError` if it was rejected, `RetryError` if it failed; `body_too_large`
        before anything is sent; `timed_out` if the outcome does not come in time, though it will still be applied.
        """
        if group is not None and wait == "done":
            raise RequestError(
                Code.USAGE,
                "The outcomes of a group come in common notices: a single one cannot be waited for.",
                where="group",
                hint="Use wait='accepted', or send_many.",
            )
        bus = self.connection.bus
        message = Message(function, args, rows, arrow, request_id or new_id())
        request = encode(
            message,
            bus.subjects,
            self.name,
            self.connection.sender,
            size_bytes_max=bus.payload_bytes_max(),
            group=group,
            expected_version=expected_version,
        )
        with self.connection.probe.step("client.send", model=self.name, function=function, request=request):
            if wait == "accepted":
                ack = await publish_until_accepted(bus, request, timeout_ms)
                return Receipt(self.name, function, request.request_id, ack.seq)
            return await self._send_until_done(function, request, timeout_ms, on_notice)

    async def _send_until_done(
        self, function: str, request: Encoded, timeout_ms: float, on_notice: OnNotice | None = None
    ) -> Receipt:
        bus = self.connection.bus
        async with OutcomeWaiter(bus, self.name, request.request_id, self.connection.read_object, on_notice) as waiter:
            ack = await publish_until_accepted(bus, request, timeout_ms)
            notice = await waiter.wait(timeout_ms, request)
        self.connection.saw(self.name, notice.version)
        return Receipt(
            model=self.name,
            function=function,
            request_id=request.request_id,
            seq=notice.seq or ack.seq,
            version=notice.version,
            result=notice.result,
            tables=notice.tables,
        )

    async def outcome(self, request_id: str, *, timeout_ms: float = TIMEOUT_MS) -> Notice:
        """Return the `done` notice of a request that was sent before; raises its error as `send` does."""
        check_request_id(request_id, "request_id")
        async with OutcomeWaiter(self.connection.bus, self.name, request_id, self.connection.read_object) as waiter:
            notice = await waiter.wait(timeout_ms)
        self.connection.saw(self.name, notice.version)
        return notice

    async def send_again(self, letter: DeadLetter, body: bytes, *, timeout_ms: float = TIMEOUT_MS) -> Receipt:
        """Send a request that was set aside once more, byte for byte, under a new id; raises its outcome's error."""
        bus = self.connection.bus
        headers = {HEADER_REQUEST_ID: new_id(), HEADER_CONTENT_TYPE: letter.content_type}
        if letter.args is not None:
            headers[HEADER_ARGS] = letter.args
        subject = bus.subjects.request(self.name, letter.function, self.connection.sender)
        request = Encoded(headers[HEADER_REQUEST_ID], subject, headers, body)
        check_size(request, bus.payload_bytes_max())
        return await self._send_until_done(letter.function, request, timeout_ms)

    async def send_many(
        self,
        items: Iterable[Item] | AsyncIterable[Item],
        *,
        group: str | None = None,
        wait: Wait = "accepted",
        batch: int = 1_000,
        timeout_ms: float = BULK_SILENCE_MS,
        progress: BulkProgress | None = None,
    ) -> Summary:
        """Send many requests fast: `(function, args)` pairs or `Message`s, from an iterable or an async one.

        They are published in atomic batches of up to `batch`: accepted together, applied one by one; each request still
        has its own outcome, and a refused one does not affect the others. Outcomes come as one notice per version and
        group; `wait="done"` adds them up and returns the refused ids with their reasons. `timeout_ms` limits a silence,
        not the whole. `progress` is called with the requests accepted and those whose outcome is known.

        Raises what kept a batch from being accepted, naming how many were accepted before it.
        """
        options = BulkOptions(group or new_id(), wait, batch, timeout_ms)
        bulk = BulkSender(
            self.connection.bus,
            self.name,
            self.connection.sender,
            options,
            self.connection.read_json_object,
            progress,
        )
        summary = await bulk.run(items)
        self.connection.saw(self.name, summary.version)
        return summary

    # --- the built-in functions ---

    async def append(self, table: str, rows: Rows, **options: Unpack[SendOptions]) -> Receipt:
        """Append rows: a list of objects, or Arrow data."""
        return await self._send_rows("append", {"table": table}, rows, options)

    async def replace(self, table: str, rows: Rows, **options: Unpack[SendOptions]) -> Receipt:
        """Replace all rows of a table."""
        return await self._send_rows("replace", {"table": table}, rows, options)

    async def upsert(
        self, table: str, rows: Rows, *, key: Sequence[str] | None = None, **options: Unpack[SendOptions]
    ) -> Receipt:
        """Insert rows, or overwrite those with the same `key` (the primary key if left out)."""
        return await self._send_rows("upsert", given(table=table, key=listed(key)), rows, options)

    async def update(
        self,
        table: str,
        set: Mapping[str, Any],
        where: Mapping[str, Any],
        **options: Unpack[SendOptions],
    ) -> Receipt:
        """Set columns of the rows whose columns equal all of `where`."""
        return await self.send("update", {"table": table, "set": dict(set), "where": dict(where)}, **options)

    async def delete(self, table: str, where: Mapping[str, Any], **options: Unpack[SendOptions]) -> Receipt:
        """Delete the rows whose columns equal all of `where`."""
        return await self.send("delete", {"table": table, "where": dict(where)}, **options)

    async def create_table(
        self,
        table: str,
        columns: Mapping[str, str] | Sequence[Mapping[str, Any]],
        *,
        primary_key: Sequence[str] | None = None,
        if_not_exists: bool = False,
        **options: Unpack[SendOptions],
    ) -> Receipt:
        """Create a table; columns as `{"id": "BIGINT"}`, or as objects with `name`, `type`, `nullable`, `default`."""
        args = table_args(table, columns, primary_key)
        return await self.send("create_table", args | given(if_not_exists=if_not_exists or None), **options)

    async def alter_table(
        self,
        table: str,
        *,
        add: Mapping[str, Any] | None = None,
        drop: str | None = None,
        rename: Mapping[str, str] | None = None,
        **options: Unpack[SendOptions],
    ) -> Receipt:
        """Change a table's columns: exactly one of `add` (a column), `drop` (a name), `rename` ({old: new})."""
        return await self.send("alter_table", given(table=table, add=add, drop=drop, rename=rename), **options)

    async def drop_table(self, table: str, **options: Unpack[SendOptions]) -> Receipt:
        """Drop a table."""
        return await self.send("drop_table", {"table": table}, **options)

    async def load(
        self,
        table: str,
        uri: str,
        *,
        mode: Literal["append", "replace", "create"] = "append",
        csv: Mapping[str, Any] | None = None,
        **options: Unpack[SendOptions],
    ) -> Receipt:
        """Load a file by reference, read by the manager: Parquet, CSV or Arrow from a place that the operator allowed.

        `csv` are the options of a CSV file: `delimiter`, `quote`, `encoding`, `null`, `decimal`, `thousands`,
        `date_format`, `timestamp_format`, `header`.
        """
        return await self.send("load", {"table": table, "uri": uri, "mode": mode, **(csv or {})}, **options)

    async def sql(
        self, statement: str, parameters: queries.Parameters = None, **options: Unpack[SendOptions]
    ) -> Receipt:
        """Run one INSERT, UPDATE, DELETE or MERGE; `parameters` are a list for `?` or an object for `$name`."""
        return await self.send("sql", given(statement=statement, parameters=plain(parameters)), **options)

    async def archive(self, tables: Sequence[str] | None = None, **options: Unpack[SendOptions]) -> Receipt:
        """Return once the Parquet archive of this moment is complete, of all tables if none is named.

        If the store lost the blocks of this version, a later one is archived: `result["archive"]` is its number.
        """
        return await self.send("archive", given(tables=listed(tables)), **options)

    async def restore(self, version: int, **options: Unpack[SendOptions]) -> Receipt:
        """Make the tables equal those of an earlier version, in a new one; those in between stay in the history."""
        return await self.send("restore", {"version": version}, **options)

    async def _send_rows(self, function: str, args: dict[str, Any], rows: Rows, options: SendOptions) -> Receipt:
        if hasattr(rows, "__arrow_c_stream__"):
            return await self.send(function, args, arrow=rows, **options)
        return await self.send(function, args, rows=rows, **options)
