"""Notices: published until JetStream has acknowledged them, and read again by clients that missed them."""

from __future__ import annotations

import json
from collections.abc import Sequence

from teatree.contracts.errors import Code, RequestError, RetryError, TeatreeError
from teatree.contracts.formats.notices import NoticeMessage
from teatree.messaging.bus import Bus
from teatree.messaging.direct import NOT_FOUND, StoredMessage, direct_get, last_messages
from teatree.messaging.headers import decode_status
from teatree.messaging.inbox import Exchange, ReplySink
from teatree.messaging.jetstream import IS_IT_UP, NO_RESPONDERS, api_error
from teatree.messaging.message import ReceivedMessage

IN_FLIGHT_MAX = 4_000
ACK_TIMEOUT_MS = 5_000
TRIES_MAX = 3
READ_TIMEOUT_MS = 5_000


class TooLongError(RetryError):
    """The server takes no notice as long as one of these: make them anew, shorter, and publish them again."""


class NoticeWriter:
    """Publishes notices in their order and waits until each is acknowledged; one that was not is published again.

    A notice may thus be stored twice; both are identical.
    """

    def __init__(self, bus: Bus, *, in_flight_max: int = IN_FLIGHT_MAX, ack_timeout_ms: float = ACK_TIMEOUT_MS) -> None:
        self._bus = bus
        self._in_flight_max = in_flight_max
        self._ack_timeout_ms = ack_timeout_ms

    @property
    def losses(self) -> int:
        """Times that the connection was lost: a server that was killed can have forgotten what it acknowledged."""
        return self._bus.losses

    async def publish(self, messages: Sequence[NoticeMessage]) -> None:
        """Return when JetStream has all of them; raises `unavailable` or `timed_out`: publish all of them again.

        Raises TooLongError, a `RetryError` too, where the server takes less in one message than when they were made.

        It never continues after a lost connection: earlier notices may have to be published again first.
        """
        for i in range(0, len(messages), self._in_flight_max):
            await self._publish(messages[i : i + self._in_flight_max])

    async def _publish(self, messages: Sequence[NoticeMessage]) -> None:
        losses = self.losses
        for attempt in range(1, TRIES_MAX + 1):
            missing = set(range(len(messages)))
            try:
                await self._send(messages, missing)
            except RequestError as e:
                if e.code is not Code.BODY_TOO_LARGE:
                    raise
                raise TooLongError(Code.UNAVAILABLE, f"A notice is too long: {e.message}", where=e.where) from e
            except RetryError:
                if attempt == TRIES_MAX or losses != self.losses:
                    raise
                messages = [messages[i] for i in sorted(missing)]
            else:
                return

    async def _send(self, messages: Sequence[NoticeMessage], missing: set[int]) -> None:
        def sink_of(exchange: Exchange) -> ReplySink:
            def sink(tail: bytes, block: bytes | None, body: bytes) -> None:
                if block or body.startswith(b'{"error"'):
                    exchange.fail(_refusal(block, body))
                    return
                missing.discard(int(tail))
                if not missing:
                    exchange.finish()

            return sink

        with self._bus.open(sink_of) as exchange:
            await self._bus.send(
                self._bus.frame(subject, body, headers, f"{exchange.reply}.{number}")
                for number, (subject, body, headers) in enumerate(messages)
            )
            await exchange.wait(self._ack_timeout_ms, f"{len(messages)} notices")


def _refusal(block: bytes | None, body: bytes) -> TeatreeError:
    if decode_status(block) == NO_RESPONDERS:
        return RetryError(Code.UNAVAILABLE, "No stream takes notices.", where="notices", hint=IS_IT_UP)
    return api_error(json.loads(body)["error"], "notices")


async def last_notice(bus: Bus, subject: str, *, timeout_ms: float = READ_TIMEOUT_MS) -> ReceivedMessage | None:
    """Return the newest notice on a subject, which may have wildcards, or None."""
    found = await last_messages(bus, bus.subjects.notices_stream, [subject], timeout_ms=timeout_ms)
    if not found:
        return None
    newest = max(found, key=lambda message: message.seq)
    return ReceivedMessage(newest.subject, newest.headers, newest.body)


async def read_notices(
    bus: Bus, subject: str, *, after: int = 0, count_max: int = 1_000, timeout_ms: float = READ_TIMEOUT_MS
) -> list[StoredMessage]:
    """Return the notices on a subject, which may have wildcards, beyond a sequence of their stream, oldest first."""
    ask = {"seq": after + 1, "next_by_subj": subject, "batch": count_max, "max_bytes": 16_000_000}
    reply = await direct_get(bus, bus.subjects.notices_stream, ask, timeout_ms)
    return [] if reply.status == NOT_FOUND else reply.messages
