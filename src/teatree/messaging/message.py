"""Messages, and subscriptions that report missed ones.

A subscription belongs to the event loop of its bus. Messages wait in a bounded queue; what does not fit is dropped,
and the reader gets an error, since core NATS repeats nothing. So it does after a lost connection.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from attrs import field, frozen

from teatree.contracts.errors import Code, RetryError
from teatree.messaging.headers import decode_headers


@frozen
class ReceivedMessage:
    """A message that arrived on a subject."""

    subject: str
    headers: dict[str, str] = field(factory=dict)
    body: bytes = field(default=b"", repr=False)
    reply: str = ""


_MISSED_HINT = "Read what was missed from the stream, then continue."
Sink = Callable[[bytes, bytes, bytes | None, bytes], None]
"""Takes subject, reply, header block and body as they came from the wire; must be quick and must not raise."""


class Subscription:
    """An endless async iterator of messages; one reader.

    Iterating raises `over_limit` after messages were dropped because the reader was slow, and `unavailable` after the
    connection was lost for a while. Both only once, and the subscription stays open: read from the stream what was
    missed, then iterate.
    """

    def __init__(self, subject: str, pending_max: int, pending_bytes_max: int) -> None:
        self.subject = subject
        self.dropped = 0
        """Messages that did not fit."""
        self._pending_max = pending_max
        self._pending_bytes_max = pending_bytes_max
        self._queue: deque[ReceivedMessage | RetryError] = deque()
        self._bytes = 0
        self._dropping = False
        self._closed = False
        self._arrived = asyncio.Event()
        self._unsubscribe: Callable[[], Awaitable[None]] | None = None

    def opened(self, unsubscribe: Callable[[], Awaitable[None]]) -> None:
        """Set the function that ends it."""
        self._unsubscribe = unsubscribe

    def push(self, subject: bytes, reply: bytes, block: bytes | None, body: bytes) -> None:
        """Receive one message from the wire."""
        if len(self._queue) >= self._pending_max or self._bytes + len(body) > self._pending_bytes_max:
            self.dropped += 1
            if not self._dropping:
                self._dropping = True
                self._queue.append(self._slow())
        else:
            self._dropping = False
            self._bytes += len(body)
            self._queue.append(
                ReceivedMessage(
                    subject.decode("utf-8", "replace"), decode_headers(block), body, reply.decode("utf-8", "replace")
                )
            )
        self._arrived.set()

    def _slow(self) -> RetryError:
        return RetryError(
            Code.OVER_LIMIT,
            f"Messages on {self.subject} came faster than they were read: {self._pending_max} were waiting.",
            where=self.subject,
            hint=_MISSED_HINT,
        )

    def interrupted(self) -> None:
        """Note that the connection was lost: messages may have been missed."""
        self._queue.append(
            RetryError(
                Code.UNAVAILABLE,
                f"The connection to NATS was lost: messages on {self.subject} may have been missed.",
                where=self.subject,
                hint=_MISSED_HINT,
            )
        )
        self._arrived.set()

    def pop(self) -> ReceivedMessage | None:
        """Return a message that waits already, or None; raises as iterating does."""
        if not self._queue:
            self._arrived.clear()
            return None
        item = self._queue.popleft()
        if isinstance(item, RetryError):
            raise item
        self._bytes -= len(item.body)
        return item

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> ReceivedMessage:
        while True:
            message = self.pop()
            if message is not None:
                return message
            if self._closed:
                raise StopAsyncIteration
            await self._arrived.wait()

    async def next(self, timeout_ms: int) -> ReceivedMessage:
        """Return the next message; raises `timed_out` if none comes in time."""
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                return await anext(self)
        except TimeoutError:
            raise RetryError(
                Code.TIMED_OUT, f"Nothing came on {self.subject} within {timeout_ms} ms.", where=self.subject
            ) from None
        except StopAsyncIteration:
            raise RetryError(
                Code.UNAVAILABLE, f"The subscription to {self.subject} is closed.", where=self.subject
            ) from None

    async def close(self) -> None:
        """End the subscription; what waits can still be read."""
        if self._closed:
            return
        self._closed = True
        self._arrived.set()
        if self._unsubscribe is not None:
            await self._unsubscribe()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
