"""Atomic batches into the log: up to 1,000 requests accepted together, at the cost of one (ADR-50 of NATS).

Several batches are in flight at once, but each is committed only after the one before it, so that what is accepted
is always a prefix of what was sent, in its order. Accepted together does not mean taking effect together.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence

from attrs import frozen

from teatree.contracts.errors import Code, RequestError, RetryError, TeatreeError
from teatree.contracts.names import new_id
from teatree.contracts.retry import Pauses, Retry
from teatree.messaging.bus import Bus
from teatree.messaging.headers import decode_status, encode_headers
from teatree.messaging.inbox import Exchange, ReplySink
from teatree.messaging.jetstream import ERROR_BATCH_INCOMPLETE, IS_IT_UP, NO_RESPONDERS, ApiError, api_error

BATCH_MESSAGES_MAX = 1_000
"""The server's limit."""
BATCH_TIMEOUT_MS = 30_000
PAUSES = Pauses(20, 1_000)

LogMessage = tuple[str, bytes, Mapping[str, str]]
"""Subject, body and headers."""


@frozen
class BatchAck:
    """The receipt of a batch: all of it is on disk."""

    last_seq: int
    """Sequence of its last message; the others directly precede it."""
    count: int


async def publish_batch(bus: Bus, messages: Sequence[LogMessage], *, timeout_ms: float = BATCH_TIMEOUT_MS) -> int:
    """Publish up to 1,000 messages so that all are accepted or none; return the sequence of the last.

    Raises `timed_out` or `unavailable` if the receipt was lost: send the same ids again. Raises `busy` if too many
    batches stay open on the server for all of `timeout_ms`.
    """
    publisher = BatchPublisher(bus, in_flight_max=1, timeout_ms=timeout_ms)
    return (await (await publisher.put(messages))).last_seq


class BatchPublisher:
    """Publishes batch after batch, with a bounded number of them in flight.

    After a batch has failed the later ones fail too, unsent: nothing is accepted out of order.
    """

    def __init__(self, bus: Bus, *, in_flight_max: int = 3, timeout_ms: float = BATCH_TIMEOUT_MS) -> None:
        self._bus = bus
        self._timeout_ms = timeout_ms
        self._slots = asyncio.Semaphore(in_flight_max)
        self._last: asyncio.Task[BatchAck] | None = None

    async def put(self, messages: Sequence[LogMessage]) -> asyncio.Task[BatchAck]:
        """Start a batch, waiting while too many are in flight; the task returned gives its receipt or its error."""
        if not 1 <= len(messages) <= BATCH_MESSAGES_MAX:
            raise RequestError(
                Code.BAD_ARGUMENT,
                f"A batch has 1 to {BATCH_MESSAGES_MAX} messages, not {len(messages)}.",
                where="messages",
            )
        batch = _Batch(self._bus, messages, self._last)
        await self._slots.acquire()
        self._last = asyncio.create_task(batch.publish(self._timeout_ms))
        self._last.add_done_callback(lambda _: self._slots.release())
        return self._last

    async def drain(self) -> None:
        """Wait until all batches are accepted; raises the first one's error that is not."""
        if self._last is not None:
            await self._last


class _Batch:
    def __init__(self, bus: Bus, messages: Sequence[LogMessage], before: asyncio.Task[BatchAck] | None) -> None:
        self._bus = bus
        self._messages = messages
        self._before = before

    async def publish(self, timeout_ms: float) -> BatchAck:
        give_up_at = self._bus.clock.monotonic() + timeout_ms / 1000

        async def attempt() -> BatchAck:
            left_ms = (give_up_at - self._bus.clock.monotonic()) * 1000
            return await self._attempt(max(left_ms, 1))

        return await Retry(PAUSES, timeout_ms, again=_is_uncommitted, clock=self._bus.clock).call_async(attempt)

    async def _attempt(self, timeout_ms: float) -> BatchAck:
        acks: list[BatchAck] = []
        with self._bus.open(lambda exchange: self._sink(exchange, acks)) as exchange:
            frames = self._frames(new_id(), exchange.reply)
            await self._bus.wait_connected(timeout_ms)
            await self._bus.send(frames[:-1])
            await self._turn(exchange)
            await self._bus.send(frames[-1:])
            await exchange.wait(timeout_ms, f"a batch of {len(frames)} messages")
        return acks[0]

    async def _turn(self, exchange: Exchange) -> None:
        """Wait for the batch before this one, or until this one has failed already."""
        if self._before is None:
            return
        await asyncio.wait((self._before, exchange.done), return_when=asyncio.FIRST_COMPLETED)
        if self._before.done():
            if self._before.cancelled() or self._before.exception() is not None:
                raise _UnsentError(self._before)
            self._before = None

    def _frames(self, batch_id: str, reply: str) -> list[bytes]:
        last = len(self._messages)
        frames = []
        for number, (subject, body, headers) in enumerate(self._messages, 1):
            extra = {"Nats-Batch-Id": batch_id, "Nats-Batch-Sequence": str(number)}
            if number == last:
                extra["Nats-Batch-Commit"] = "1"
            # The first is answered when the server opened the batch or refused to, the last when all is on disk.
            to = reply if number in (1, last) else ""
            frames.append(self._bus.frame(subject, body, encode_headers({**headers, **extra}), to))
        return frames

    def _sink(self, exchange: Exchange, acks: list[BatchAck]) -> ReplySink:
        def sink(_: bytes, block: bytes | None, body: bytes) -> None:
            if decode_status(block) == NO_RESPONDERS:
                exchange.fail(
                    RetryError(
                        Code.UNAVAILABLE, f"No stream takes {self._messages[0][0]}.", where="the log", hint=IS_IT_UP
                    )
                )
            elif body:
                answer = json.loads(body)
                if "error" in answer:
                    exchange.fail(api_error(answer["error"], "the log"))
                elif "batch" in answer or len(self._messages) == 1:
                    acks.append(BatchAck(int(answer["seq"]), int(answer.get("count", 1))))
                    exchange.finish()

        return sink


class _UnsentError(RetryError):
    """A batch that was not committed because the one before it failed."""

    def __init__(self, before: asyncio.Task[BatchAck]) -> None:
        cause = None if before.cancelled() else before.exception()
        super().__init__(
            cause.code if isinstance(cause, TeatreeError) else Code.UNAVAILABLE,
            f"Not sent, since the batch before it failed: {cause or 'it was cancelled'}",
            where="the log",
        )


def _is_uncommitted(error: TeatreeError) -> bool:
    """Whether the server certainly holds nothing of the batch, and the same batch may succeed later."""
    if isinstance(error, _UnsentError):
        return False
    return error.code is Code.BUSY or (isinstance(error, ApiError) and error.number == ERROR_BATCH_INCOMPLETE)
