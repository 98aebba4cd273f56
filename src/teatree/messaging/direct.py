"""Reading a stream without a consumer: batched direct get (ADR-31 of NATS), nothing to create, lose or acknowledge."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from attrs import field, frozen

from teatree.contracts.errors import Code, RetryError
from teatree.contracts.formats.requests import LogPosition
from teatree.messaging.bus import Bus
from teatree.messaging.headers import HEADER_SUBJECT, decode_headers, decode_status
from teatree.messaging.inbox import Exchange, ReplySink
from teatree.messaging.jetstream import IS_IT_UP, NO_RESPONDERS

END_OF_BATCH = 204
NOT_FOUND = 404
TIMED_OUT = 408
TOO_MANY_RESULTS = 413
_STORED = b"\r\nNats-Time-Stamp: "
"""In every stored message and in no end marker: a sender may put a status line into a message."""


@frozen
class StoredMessage:
    """A message of a stream."""

    subject: str
    seq: int
    at: str
    """When the stream stored it: RFC 3339 with nanoseconds, as its server writes it."""
    predecessor: int
    """Sequence of the message before it in the same answer; 0 for the first."""
    headers: dict[str, str] = field(factory=dict)
    body: bytes = field(default=b"", repr=False)

    @property
    def position(self) -> LogPosition:
        """Its place in the stream, to the microsecond."""
        return LogPosition(self.seq, datetime.fromisoformat(self.at))


@frozen
class MessageHead:
    """Subject and place of a message of a stream."""

    subject: str
    position: LogPosition


@frozen
class DirectReply:
    """What a batched direct get answered, and how it ended."""

    messages: list[StoredMessage]
    status: int
    """`END_OF_BATCH`, `NOT_FOUND` (nothing follows) or `TOO_MANY_RESULTS`."""
    pending: int = 0
    """How many more messages match."""
    last_seq: int = 0
    """Sequence of the last message sent."""
    up_to_seq: int = 0
    """Sequence up to which the stream was searched, for last messages."""


async def direct_get(bus: Bus, stream: str, ask: dict[str, Any], timeout_ms: float) -> DirectReply:
    """Ask for many messages at once; raises `timed_out` if the end does not come, `unavailable` without a server."""
    messages: list[tuple[bytes, bytes]] = []
    end: list[bytes] = []

    def sink_of(exchange: Exchange) -> ReplySink:
        def sink(_: bytes, block: bytes | None, body: bytes) -> None:
            if block is None or (block[8:9] == b" " and _STORED not in block):
                end.append(block or b"")
                exchange.finish()
            else:
                messages.append((block, body))

        return sink

    subject = f"$JS.API.DIRECT.GET.{stream}"
    with bus.open(sink_of) as exchange:
        await bus.wait_connected(timeout_ms)
        await bus.send((bus.frame(subject, json.dumps(ask).encode(), None, exchange.reply),))
        await exchange.wait(timeout_ms, f"a read of {stream}")
    status = decode_status(end[0])
    match status:
        case 204 | 404 | 413:  # END_OF_BATCH, NOT_FOUND, TOO_MANY_RESULTS
            return _read(messages, status, decode_headers(end[0]))
        case _:
            raise _unreadable(stream, end[0])


def _unreadable(stream: str, block: bytes) -> RetryError:
    why = block[9:60].decode(errors="replace").strip()
    if decode_status(block) == NO_RESPONDERS:
        why = "no server answers for it"
    return RetryError(
        Code.UNAVAILABLE, f"The stream {stream} cannot be read: {why}.", where=f"stream {stream}", hint=IS_IT_UP
    )


def _read(messages: list[tuple[bytes, bytes]], status: int, end: dict[str, str]) -> DirectReply:
    return DirectReply(
        [_stored(decode_headers(block), body) for block, body in messages],
        status,
        pending=int(end.get("Nats-Num-Pending", 0)),
        last_seq=int(end.get("Nats-Last-Sequence", 0)),
        up_to_seq=int(end.get("Nats-UpTo-Sequence", 0)),
    )


def _stored(headers: dict[str, str], body: bytes) -> StoredMessage:
    take = headers.pop
    take("Nats-Stream", None)  # the server's first line: it continues a sender's last one that has no line end
    take("Nats-Num-Pending", None)
    return StoredMessage(
        take(HEADER_SUBJECT),
        int(take("Nats-Sequence")),
        take("Nats-Time-Stamp"),
        int(take("Nats-Last-Sequence")),
        headers,
        body,
    )


async def message_at(bus: Bus, stream: str, seq: int, *, timeout_ms: float) -> MessageHead | None:
    """Return the message with a sequence number, None if the stream has none."""
    return await _single(bus, stream, {"seq": seq}, timeout_ms)


async def last_message(bus: Bus, stream: str, subject_filter: str, *, timeout_ms: float) -> MessageHead | None:
    """Return a stream's last message that matches, None without one.

    However many subjects match: the server searches the messages backwards.
    """
    return await _single(bus, stream, {"last_by_subj": subject_filter}, timeout_ms)


async def _single(bus: Bus, stream: str, ask: dict[str, Any], timeout_ms: float) -> MessageHead | None:
    replies: list[bytes | None] = []

    def sink_of(exchange: Exchange) -> ReplySink:
        def sink(_: bytes, block: bytes | None, _body: bytes) -> None:
            replies.append(block)
            exchange.finish()

        return sink

    with bus.open(sink_of) as exchange:
        await bus.wait_connected(timeout_ms)
        frame = bus.frame(f"$JS.API.DIRECT.GET.{stream}", json.dumps(ask).encode(), None, exchange.reply)
        await bus.send((frame,))
        await exchange.wait(timeout_ms, f"a read of {stream}")
    block = replies[0] or b""
    if _STORED in block:
        headers = decode_headers(block)
        position = LogPosition(int(headers["Nats-Sequence"]), datetime.fromisoformat(headers["Nats-Time-Stamp"]))
        return MessageHead(headers[HEADER_SUBJECT], position)
    if decode_status(block) == NOT_FOUND:
        return None
    raise _unreadable(stream, block)


async def last_messages(
    bus: Bus, stream: str, filters: Sequence[str], *, after: int = 0, bytes_max: int = 8_000_000, timeout_ms: float
) -> list[StoredMessage] | None:
    """Return the last message of every subject that matches, in their order; None if there are over 1,024 subjects.

    With `after`, only of subjects whose last message is beyond that sequence number.
    """
    found: list[StoredMessage] = []
    ask: dict[str, Any] = {"multi_last": list(filters), "max_bytes": bytes_max, "batch": 1024, "seq": after + 1}
    while True:
        reply = await direct_get(bus, stream, ask, timeout_ms)
        if reply.status == TOO_MANY_RESULTS:
            return None
        found.extend(reply.messages)
        if not reply.messages or reply.pending <= 0:
            return found
        ask["seq"] = found[-1].seq + 1
        ask["up_to_seq"] = reply.up_to_seq
