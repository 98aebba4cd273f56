"""Replies: one subscription for all requests of a bus, distinguished by a token in the reply's subject."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Self

from teatree.contracts.errors import Code, RetryError
from teatree.contracts.names import new_id

ReplySink = Callable[[bytes, bytes | None, bytes], None]
"""Takes the subject's tokens after the exchange's own (b"" if there are none), the header block and the body."""


class Exchange:
    """One request and its replies, however many: `done` is resolved by the sink, or fails when the connection does."""

    def __init__(self, inbox: Inbox, token: bytes, reply: str) -> None:
        self.reply = reply
        """The reply subject to send along; `<reply>.<anything>` arrives here too."""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._inbox = inbox
        self._token = token

    def finish(self) -> None:
        """Report that all replies are there."""
        if not self.done.done():
            self.done.set_result(None)

    def fail(self, error: Exception) -> None:
        """Report that no reply will come."""
        if not self.done.done():
            self.done.set_exception(error)

    async def wait(self, timeout_ms: float, what: str) -> None:
        """Wait until all replies are there; raises `timed_out`, or `unavailable` when the connection is lost."""
        _, late = await asyncio.wait((self.done,), timeout=timeout_ms / 1000)
        if late:
            raise RetryError(Code.TIMED_OUT, f"No answer to {what} within {timeout_ms:.0f} ms.", where=what)
        self.done.result()

    def close(self) -> None:
        """Drop further replies."""
        self._inbox.forget(self._token)
        if self.done.done():
            if not self.done.cancelled():
                self.done.exception()  # retrieved, since the waiting task has ended
        else:
            self.done.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Inbox:
    """Hands replies to the exchanges that wait for them."""

    def __init__(self) -> None:
        self.prefix = f"_INBOX.{new_id().replace('-', '')}."
        self._skip = len(self.prefix)
        self._numbers = itertools.count(1)
        self._sinks: dict[bytes, tuple[ReplySink, Exchange]] = {}

    @property
    def filter(self) -> str:
        """The subject to subscribe to."""
        return f"{self.prefix}>"

    def open(self, sink_of: Callable[[Exchange], ReplySink]) -> Exchange:
        """Return a new exchange whose replies go to the sink that `sink_of` makes for it."""
        token = b"%d" % next(self._numbers)
        exchange = Exchange(self, token, f"{self.prefix}{token.decode()}")
        self._sinks[token] = (sink_of(exchange), exchange)
        return exchange

    def forget(self, token: bytes) -> None:
        """Drop what still comes for an exchange."""
        self._sinks.pop(token, None)

    def push(self, subject: bytes, _: bytes, block: bytes | None, body: bytes) -> None:
        """Receive one reply from the wire; one whose exchange is closed is dropped."""
        token, _dot, tail = subject[self._skip :].partition(b".")
        found = self._sinks.get(token)
        if found is not None:
            found[0](tail, block, body)

    def interrupted(self, error: RetryError) -> None:
        """Fail every exchange: its replies may have been lost with the connection."""
        for _, exchange in list(self._sinks.values()):
            exchange.fail(error)
