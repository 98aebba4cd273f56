"""The log: a model's requests in their order, single messages, and wake hints.

The log is read, not consumed: no acknowledgement decides anything. Within one read every message names its
predecessor, the first of a read names none and the end names the last, so a lost message cannot pass unnoticed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from typing import Any

from attrs import frozen

from teatree.contracts.errors import Code, RetryError
from teatree.contracts.formats.requests import LogPosition, Request, read_request
from teatree.messaging.bus import Bus
from teatree.messaging.direct import NOT_FOUND, DirectReply, StoredMessage, direct_get, message_at
from teatree.messaging.headers import HEADER_SUBJECT, decode_headers
from teatree.messaging.jetstream import ERROR_NO_MESSAGE, ApiError
from teatree.messaging.subjects import ADVANCED, PADDING, is_token

READ_TIMEOUT_MS = 5_000


@frozen
class LogSlice:
    """What follows a position: requests in their order, and how many more wait."""

    requests: list[Request]
    pending: int


class LogReader:
    """Reads the requests of one model."""

    def __init__(self, bus: Bus, model: str) -> None:
        self._bus = bus
        self._model = model
        self._filter = bus.subjects.request_filter(model)
        self._stream = bus.subjects.requests_stream

    async def read(
        self, after: int, *, requests_max: int, bytes_max: int, timeout_ms: float = READ_TIMEOUT_MS
    ) -> LogSlice:
        """Return up to `requests_max` requests beyond the sequence number `after`, about `bytes_max` bytes of them.

        At least one, if there is one, however large. Raises `timed_out` or `unavailable` if anything of the answer was
        lost: read again.
        """
        ask = {"seq": after + 1, "next_by_subj": self._filter, "batch": requests_max, "max_bytes": bytes_max}
        probe = self._bus.probe
        with probe.step("log.read", model=self._model, after=after):
            reply = await direct_get(self._bus, self._stream, ask, timeout_ms)
        if reply.status == NOT_FOUND:
            return LogSlice([], 0)
        with probe.step("log.decode", model=self._model, messages=reply.messages):
            return LogSlice(self._requests(reply), reply.pending)

    async def read_since(
        self, at: str, *, requests_max: int, bytes_max: int, timeout_ms: float = READ_TIMEOUT_MS
    ) -> AsyncIterator[list[StoredMessage]]:
        """Yield the messages stored at a time (RFC 3339) or later, as they lie in the log, in portions."""
        ask: dict[str, Any] = {"start_time": at}
        while True:
            ask |= {"next_by_subj": self._filter, "batch": requests_max, "max_bytes": bytes_max}
            reply = await direct_get(self._bus, self._stream, ask, timeout_ms)
            if reply.status == NOT_FOUND or not reply.messages:
                return
            self._requests(reply)  # raises if one was lost in transit
            yield reply.messages
            ask = {"seq": reply.messages[-1].seq + 1}

    def _requests(self, reply: DirectReply) -> list[Request]:
        requests: list[Request] = []
        append, parse = requests.append, self._bus.subjects.parse_request
        previous = 0
        for message in reply.messages:
            if message.predecessor != previous:
                raise self._hole(previous, message.predecessor)
            previous = message.seq
            _, function, sender = parse(message.subject)
            at = datetime.fromisoformat(message.at)
            append(read_request(self._model, function, previous, at, message.headers, message.body, sender))
        if reply.last_seq != previous:
            raise self._hole(previous, reply.last_seq)
        return requests

    def _hole(self, found: int, named: int) -> RetryError:
        return RetryError(
            Code.UNAVAILABLE,
            f"A message was lost in transit: after {found or 'the start'} came one whose predecessor is {named}.",
            where=f"stream {self._stream}",
            hint="Read again.",
        )


async def count_after(bus: Bus, model: str, offset: int, *, timeout_ms: float = READ_TIMEOUT_MS) -> int:
    """Return how many requests of a model the log holds beyond an offset."""
    wanted = {"seq": offset + 1, "next_by_subj": bus.subjects.request_filter(model), "batch": 1, "max_bytes": 1}
    reply = await direct_get(bus, bus.subjects.requests_stream, wanted, timeout_ms)
    return len(reply.messages) + max(0, reply.pending)


async def message_of(bus: Bus, seq: int, *, timeout_ms: float = READ_TIMEOUT_MS) -> tuple[str, LogPosition] | None:
    """Return the model and the position of the message with a sequence number; None if there is none."""
    subjects = bus.subjects
    found = await message_at(bus, subjects.requests_stream, seq, timeout_ms=timeout_ms)
    if found is None:  # a replica can lag behind, and must not stop a healthy model
        return await leaders_message_of(bus, seq, timeout_ms=timeout_ms)
    return subjects.parse_request(found.subject)[0], found.position


async def leaders_message_of(
    bus: Bus, seq: int, *, timeout_ms: float = READ_TIMEOUT_MS
) -> tuple[str, LogPosition] | None:
    """Return the same as `message_of`, from the stream's leader, which has all that was acknowledged."""
    try:
        answer = await bus.js(f"STREAM.MSG.GET.{bus.subjects.requests_stream}", {"seq": seq}, timeout_ms)
    except ApiError as e:
        if e.number != ERROR_NO_MESSAGE:
            raise
        return None
    found = answer["message"]
    return bus.subjects.parse_request(found["subject"])[0], LogPosition(seq, datetime.fromisoformat(found["time"]))


async def position_at(bus: Bus, seq: int) -> LogPosition | None:
    """Return the position of the message with a sequence number; None if there is none."""
    found = await message_of(bus, seq)
    return found[1] if found else None


async def first_request_since(bus: Bus, model: str, at: str, *, timeout_ms: float = READ_TIMEOUT_MS) -> int | None:
    """Return the sequence of a model's first request stored at a time (RFC 3339) or later, None without one."""
    ask = {"start_time": at, "next_by_subj": bus.subjects.request_filter(model), "batch": 1}
    reply = await direct_get(bus, bus.subjects.requests_stream, ask, timeout_ms)
    return reply.messages[0].seq if reply.messages else None


def _is_mark(block: bytes | None) -> bool:
    """Return whether a hint is of a mark of `log advance`, whose subject no other sender can have."""
    return decode_headers(block).get(HEADER_SUBJECT, "").endswith(f".{ADVANCED}")


class WakeHints:
    """Hints that a model has a new request: quick, and allowed to be lost.

    `event` is set by every hint; `take` returns the models that were hinted at since its last call, and whether hints
    may have been missed: then the caller checks all models.
    """

    def __init__(self, models_max: int) -> None:
        self.event = asyncio.Event()
        self._models: set[str] = set()
        self._models_max = models_max
        self._missed = False
        self._close: Callable[[], Awaitable[None]] | None = None

    @classmethod
    async def open(cls, bus: Bus, model: str | None = None, *, models_max: int = 10_000) -> WakeHints:
        """Subscribe to the hints of one model, or of all."""
        hints = cls(models_max)
        subject = bus.subjects.wake_all if model is None else bus.subjects.wake(model)
        hints._close = await bus.subscribe_sink(subject, hints.push, on_interrupted=hints.interrupted)
        return hints

    def push(self, subject: bytes, _reply: bytes, block: bytes | None, _body: bytes) -> None:
        """Receive a hint from the wire."""
        model = subject.decode("utf-8", "replace").rsplit(".", 1)[-1]
        if model == PADDING or not is_token(model) or (model == ADVANCED and not _is_mark(block)):
            return
        if len(self._models) < self._models_max:
            self._models.add(model)
        else:
            self._missed = True
        self.event.set()

    def interrupted(self) -> None:
        """Note that the connection was lost for a while."""
        self._missed = True
        self.event.set()

    def take(self) -> tuple[set[str], bool]:
        """Return the models hinted at, and whether hints may have been missed; then clear both."""
        models, missed = self._models, self._missed
        self._models, self._missed = set(), False
        self.event.clear()
        return models, missed

    async def close(self) -> None:
        """Unsubscribe."""
        if self._close is not None:
            await self._close()
