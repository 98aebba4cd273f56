"""Reading the subjects of a stream's messages in their order, without bodies: the cost follows the messages.

It takes a consumer, which nothing depends on: it acknowledges nothing, lives for one read, and is made again for the
next. Every message names its place among those delivered, so a lost one cannot pass unnoticed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress

from teatree.contracts.errors import Code, RetryError, TeatreeError
from teatree.contracts.names import new_id
from teatree.messaging.bus import Bus
from teatree.messaging.headers import decode_status

SUBJECTS_AT_ONCE = 1_000
"""Messages requested at once: with 64 KB of headers each they still fit into what the server keeps for a connection."""
READ_TIMEOUT_MS = 10_000
NO_MESSAGES = 404
CONSUMER_IDLE_S = 30
"""Seconds after which the server deletes the consumer of a reader that was killed."""
_ACK_TOKENS = 9
"""Of `$JS.ACK.<stream>.<consumer>.<deliveries>.<sequence>.<number>.<time>.<pending>`; in clusters there are two more
before the stream, and others may follow."""

SubjectAt = tuple[str, int]
"""A subject, and the sequence of the message on it."""


async def subjects_after(bus: Bus, stream: str, after: int, up_to: int) -> AsyncIterator[list[SubjectAt]]:
    """Yield the subject of every message beyond `after`, to `up_to` at least if the stream reaches so far, in portions.

    Raises `timed_out` or `unavailable` if anything was lost: read again.
    """
    portion = _Portion(stream)
    inbox = f"_INBOX.{new_id().replace('-', '')}"
    unsubscribe = await bus.subscribe_sink(inbox, portion.push, on_interrupted=portion.interrupted)
    consumer = ""
    try:
        config = {
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": after + 1,
            "ack_policy": "none",
            "headers_only": True,
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": CONSUMER_IDLE_S * 1_000_000_000,
        }
        made = await bus.js(f"CONSUMER.CREATE.{stream}", {"stream_name": stream, "config": config}, READ_TIMEOUT_MS)
        consumer = made["name"]
        ask = json.dumps({"batch": SUBJECTS_AT_ONCE, "no_wait": True}).encode()
        last_seq, pending = after, int(made["num_pending"])
        while pending and last_seq < up_to:
            portion.expect(SUBJECTS_AT_ONCE)
            await bus.send((bus.frame(f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}", ask, None, inbox),))
            found, pending = await portion.wait()
            if not found:
                return
            last_seq = found[-1][1]
            yield found
    finally:
        with suppress(TeatreeError):  # the server deletes it later
            await unsubscribe()
            if consumer:
                await bus.publish(f"$JS.API.CONSUMER.DELETE.{stream}.{consumer}")


class _Portion:
    """Receives the messages of one pull after the other."""

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self._number = 0
        """Messages that the consumer has delivered in all."""
        self._found: list[SubjectAt] = []
        self._pending = 0
        self._expected = 0
        self._fault: RetryError | None = None
        self._ended = asyncio.Event()

    def expect(self, count: int) -> None:
        """Begin with a pull of up to so many messages."""
        self._found = []
        self._expected = count
        self._ended.clear()

    async def wait(self) -> tuple[list[SubjectAt], int]:
        """Return what the pull brought, and how many messages follow."""
        try:
            async with asyncio.timeout(READ_TIMEOUT_MS / 1000):
                await self._ended.wait()
        except TimeoutError:
            raise RetryError(
                Code.TIMED_OUT,
                f"The stream {self._stream} sent no message within {READ_TIMEOUT_MS} ms.",
                where=f"stream {self._stream}",
            ) from None
        if self._fault is not None:
            raise self._fault
        return self._found, self._pending

    def push(self, subject: bytes, reply: bytes, block: bytes | None, _body: bytes) -> None:
        """Receive a message from the wire, or the server's end of a pull."""
        tokens = reply.split(b".")
        if len(tokens) < _ACK_TOKENS:
            status = decode_status(block)
            if status != NO_MESSAGES:
                self._fail(f"{status} {(block or b'')[13:60].decode(errors='replace').strip()}")
            self._pending = 0
            self._ended.set()
            return
        shift = 0 if len(tokens) == _ACK_TOKENS else 2
        seq, number, pending = int(tokens[5 + shift]), int(tokens[6 + shift]), int(tokens[8 + shift])
        self._number += 1
        if number != self._number:
            self._fail(f"a message was lost in transit before {seq}")
        self._found.append((subject.decode("utf-8", "replace"), seq))
        self._pending = pending
        if not pending or len(self._found) >= self._expected:
            self._ended.set()

    def interrupted(self) -> None:
        """Note that the connection was lost."""
        self._fail("the connection was lost meanwhile")

    def _fail(self, why: str) -> None:
        self._fault = RetryError(
            Code.UNAVAILABLE,
            f"The stream {self._stream} could not be read: {why}.",
            where=f"stream {self._stream}",
            hint="Read again.",
        )
        self._ended.set()
