"""Requests to a model: a single one, and many in bulk."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from teatree.client.named_model import NamedModel
from teatree.client.sending.bulk import BulkOptions, BulkProgress, BulkSender, Item
from teatree.client.sending.message import Encoded, Message, check_size, encode
from teatree.client.sending.receipt import Receipt, Summary
from teatree.client.sending.waiting import OnNotice, OutcomeWaiter, publish_until_accepted
from teatree.contracts.errors import Code, RequestError
from teatree.contracts.formats.requests import HEADER_ARGS, HEADER_CONTENT_TYPE, HEADER_REQUEST_ID
from teatree.contracts.names import check_request_id, new_id

if TYPE_CHECKING:
    from teatree.client.notice import Notice
    from teatree.storage.dead_letters import DeadLetter

TIMEOUT_MS = 60_000
"""Default of how long an outcome or a reply is waited for."""
BULK_SILENCE_MS = 120_000

Wait = Literal["accepted", "done"]


class ModelRequests(NamedModel):
    """The requests of one model of an installation; it need not exist yet."""

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
        request = self._encoded(message, group=group, expected_version=expected_version)
        with self.connection.probe.step("client.send", model=self.name, function=function, request=request):
            if wait == "accepted":
                ack = await publish_until_accepted(bus, request, timeout_ms)
                return Receipt(self.name, function, request.request_id, ack.seq)
            return await self._send_until_done(function, request, timeout_ms, on_notice)

    def _encoded(self, message: Message, *, group: str | None = None, expected_version: int | None = None) -> Encoded:
        """Return a message as this session sends it; raises what `encode` raises."""
        bus = self.connection.bus
        return encode(
            message,
            bus.subjects,
            self.name,
            self.connection.sender,
            size_bytes_max=bus.payload_bytes_max(),
            group=group,
            expected_version=expected_version,
        )

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
