"""Reading notices from their stream: every one on a filter, once and in order, across lost connections.

A live message is only a hint that there is something to read, since core NATS repeats nothing. The stream need not sync
every message, so a server that was killed can lose its last ones and use their sequences again: after a lost connection
it is read from a timestamp on, and notices that were received already are skipped.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from cachetools import LRUCache

from teatree.client.notice import Notice, read_notice
from teatree.contracts.errors import Code, RetryError, TeatreeError
from teatree.contracts.formats.requests import HEADER_PAGE
from teatree.contracts.retry import Pauses, Retry
from teatree.messaging.direct import direct_get
from teatree.messaging.message import Subscription

if TYPE_CHECKING:
    from teatree.messaging.bus import Bus
    from teatree.messaging.direct import StoredMessage

BATCH_MAX = 500
"""Notices read at once."""
BATCH_BYTES_MAX = 4_000_000
READ_TIMEOUT_MS = 5_000
IDLE_MS = 5_000
"""Longest wait for a hint before the stream is read anyway."""
AFTER_HINT_MS = (0, 1, 4, 20, 100)
"""Waits between reads after a hint: subscribers can receive a message before the stream has stored it."""
PAUSES = Pauses(ms_max=200)
HINTS_PENDING_MAX = 1_000
HINTS_BYTES_MAX = 64_000_000
RECENT_MAX = 20_000
"""Notices remembered, so that a repeated one is not returned twice."""


class NoticeReader:
    """A position in the stream of notices, for one filter."""

    def __init__(self, bus: Bus, subject_filter: str, position: int, mark: str | None) -> None:
        self._bus = bus
        self._filter = subject_filter
        self._position = position
        self._mark = mark
        """Timestamp of the last message before the position; None at the very start."""
        self.clock = bus.clock
        self._by_time = False
        self._recent: LRUCache[int, None] = LRUCache(RECENT_MAX)

    @classmethod
    async def at(cls, bus: Bus, subject_filter: str, after: int | None) -> NoticeReader:
        """Return a reader behind a sequence, or at the stream's end for None."""
        if after is not None:
            return cls(bus, subject_filter, after, None)
        state = (await bus.js(f"STREAM.INFO.{bus.subjects.notices_stream}"))["state"]
        last_seq = int(state["last_seq"])
        return cls(bus, subject_filter, last_seq, state["last_ts"] if last_seq else None)

    def interrupted(self) -> None:
        """Read by timestamp next: the connection was lost, and the server may have used sequences again."""
        self._by_time = True

    async def read(self) -> list[Notice] | None:
        """Return the notices of the next batch that were not returned before; None if nothing follows."""
        query: dict[str, Any] = {"next_by_subj": self._filter, "batch": BATCH_MAX, "max_bytes": BATCH_BYTES_MAX}
        if self._by_time and self._mark is not None:
            query["start_time"] = self._mark
        else:
            query["seq"] = self._position + 1
        reply = await direct_get(self._bus, self._bus.subjects.notices_stream, query, READ_TIMEOUT_MS)
        if not reply.messages:
            return None
        alone = self._by_time and reply.messages[-1].at == self._mark
        self._position = reply.messages[-1].seq
        self._mark = reply.messages[-1].at
        self._by_time = False
        fresh = [message for message in reply.messages if self._is_fresh(message)]
        if alone and not fresh:
            return None
        return [read_notice(message.subject, message.headers, message.body) for message in fresh]

    def _is_fresh(self, message: StoredMessage) -> bool:
        key = hash((message.subject, message.body, message.headers.get(HEADER_PAGE)))
        if key in self._recent:
            return False
        self._recent[key] = None
        return True


async def follow_notices(bus: Bus, reader: NoticeReader, subject_filter: str) -> AsyncGenerator[Notice, None]:
    """Yield every notice from the reader's position on, without end.

    While NATS is unavailable it waits. A notice that the stream's limits dropped before it was read is lost.
    """
    hints = Subscription(subject_filter, HINTS_PENDING_MAX, HINTS_BYTES_MAX)

    def push(subject: bytes, reply: bytes, block: bytes | None, body: bytes) -> None:
        if not bus.subjects.is_of_watch(subject.decode("utf-8", "replace")):  # the stream has nothing of those
            hints.push(subject, reply, block, body)

    hints.opened(await bus.subscribe_sink(subject_filter, push, on_interrupted=hints.interrupted))
    try:
        hinted = True
        while True:
            async for notices in _batches(reader, AFTER_HINT_MS if hinted else (0,)):
                for notice in notices:
                    yield notice
            hinted = await _hint(hints, reader)
    finally:
        await hints.close()


async def read_all(bus: Bus, subject_filter: str) -> list[Notice]:
    """Return the notices on a filter that the stream holds now."""
    reader = await NoticeReader.at(bus, subject_filter, 0)
    found: list[Notice] = []
    while (notices := await reader.read()) is not None:
        found.extend(notices)
    return found


async def _batches(reader: NoticeReader, waits_ms: tuple[int, ...]) -> AsyncGenerator[list[Notice], None]:
    """Yield batches until nothing follows; read again after each of the waits while there is none."""
    found = False
    for wait_ms in waits_ms:
        await reader.clock.sleep_async(wait_ms / 1000)
        while (notices := await read_retrying(reader)) is not None:
            found = True
            yield notices
        if found:
            return


async def read_retrying(reader: NoticeReader, patience_ms: float = math.inf) -> list[Notice] | None:
    """Read the next batch, again for up to `patience_ms` while NATS is unavailable; raises its error after that."""

    def interrupt(_: TeatreeError) -> None:
        reader.interrupted()

    return await Retry(PAUSES, patience_ms, report=interrupt, clock=reader.clock).call_async(reader.read)


async def _hint(hints: Subscription, reader: NoticeReader) -> bool:
    """Wait until there may be a new notice; return False after a long silence."""
    try:
        await hints.next(IDLE_MS)
        while hints.pop() is not None:
            pass
    except RetryError as e:
        if e.code is Code.UNAVAILABLE:
            reader.interrupted()
        return e.code is not Code.TIMED_OUT  # dropped hints and a lost connection both mean: read
    return True


async def follow_filter(bus: Bus, subject_filter: str, after: int | None) -> AsyncGenerator[Notice, None]:
    """Yield every notice on a filter, without end: after a sequence, or from now on for None."""
    reader = await NoticeReader.at(bus, subject_filter, after)
    async with aclosing(follow_notices(bus, reader, subject_filter)) as notices:
        async for notice in notices:
            yield notice
