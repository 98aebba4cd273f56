"""Direct reads of a model: request and reply, never queued behind writes.

While the model is stopped, the dispatcher receives the query, starts a manager and answers `unavailable`, or there is
no subscriber at all: then the query is sent again. A query that takes long is repeated too, with the same id and reply
subject: the repeat shows the manager that the client still waits, and reaches a manager that has taken over meanwhile.
A client that gives up sends a cancel message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import orjson

from teatree.client.notice import named_error
from teatree.contracts.errors import Code, OperatorError, RetryError, TeatreeError
from teatree.contracts.formats.requests import CANCEL_FUNCTION, HEADER_REPEAT_MS, HEADER_REQUEST_ID
from teatree.contracts.names import new_id
from teatree.contracts.retry import Backoff, Pauses, Retry, is_unavailable
from teatree.messaging.headers import decode_headers, decode_status
from teatree.messaging.jetstream import NO_RESPONDERS
from teatree.messaging.message import ReceivedMessage

if TYPE_CHECKING:
    from teatree.messaging.bus import Bus
    from teatree.messaging.inbox import Exchange, ReplySink

HEADER_ERROR = "Nats-Service-Error"
HEADER_ERROR_CODE = "Nats-Service-Error-Code"
REPEAT_MS = 1_000
"""Silence after which the query is repeated: a manager that takes over receives it within this time."""
CANCEL_MS_MAX = 250
"""Milliseconds that cancelling a read may take; its manager also cancels it when no repeat comes."""
PAUSES = Pauses(20, 250)
"""Waits while there is no subscriber; a manager starts within a second or so."""


async def ask(
    bus: Bus,
    subject: str,
    body: bytes,
    timeout_ms: float,
    *,
    request_id: str | None = None,
    more: Mapping[str, str] | None = None,
) -> ReceivedMessage:
    """Return the reply to a direct read; raises the error it carries, or `timed_out`. `more` are further headers."""
    give_up_ms = bus.clock.monotonic_ms() + timeout_ms
    headers = {HEADER_REQUEST_ID: request_id or new_id(), HEADER_REPEAT_MS: str(REPEAT_MS), **(more or {})}
    retry = Retry(PAUSES, timeout_ms, again=is_unavailable, clock=bus.clock)
    return await retry.call_async(lambda: _ask_until(bus, subject, body, headers, give_up_ms))


async def _ask_until(
    bus: Bus, subject: str, body: bytes, headers: Mapping[str, str], give_up_ms: float
) -> ReceivedMessage:
    """Send the query repeatedly over one connection; return the reply to any copy."""
    replies: list[ReceivedMessage] = []
    unsubscribed = asyncio.Event()

    def sink_of(exchange: Exchange) -> ReplySink:
        def sink(_: bytes, block: bytes | None, reply: bytes) -> None:
            if decode_status(block) == NO_RESPONDERS:
                unsubscribed.set()
                return
            replies.append(ReceivedMessage(subject, decode_headers(block), reply))
            exchange.finish()

        return sink

    with bus.open(sink_of) as exchange:
        try:
            await _repeat(bus, subject, body, headers, exchange, unsubscribed, give_up_ms)
        except BaseException as e:
            if not (isinstance(e, TeatreeError) and is_unavailable(e)):  # else the query is sent again
                await _cancel(bus, subject, headers, exchange.reply)
            raise
    return _checked(replies[0])


async def _repeat(
    bus: Bus,
    subject: str,
    body: bytes,
    headers: Mapping[str, str],
    exchange: Exchange,
    unsubscribed: asyncio.Event,
    give_up_ms: float,
) -> None:
    """Send the query until a reply comes; raises `timed_out` without one, `unavailable` if the connection is lost."""
    backoff = Backoff(PAUSES, bus.clock)
    while True:
        unsubscribed.clear()
        await bus.wait_connected(max(1, give_up_ms - bus.clock.monotonic_ms()))
        await bus.send((bus.frame(subject, body, headers, exchange.reply),))
        if await _answered(exchange, unsubscribed, min(REPEAT_MS, give_up_ms - bus.clock.monotonic_ms())):
            return
        if bus.clock.monotonic_ms() >= give_up_ms:
            raise _no_subscriber(subject) if unsubscribed.is_set() else _unanswered(subject)
        if unsubscribed.is_set():
            # A reply to an earlier copy still counts meanwhile.
            await asyncio.wait((exchange.done,), timeout=sum(backoff.sleeps()))


async def _cancel(bus: Bus, subject: str, headers: Mapping[str, str], reply: str) -> None:
    """Cancel a read; best effort, since its manager also cancels it when the repeats stop."""
    cancel = f"{subject.rpartition('.')[0]}.{CANCEL_FUNCTION}"
    with suppress(TeatreeError, TimeoutError):
        async with asyncio.timeout(CANCEL_MS_MAX / 1000):
            await bus.send((bus.frame(cancel, b"", headers, reply),))


async def _answered(exchange: Exchange, unsubscribed: asyncio.Event, timeout_ms: float) -> bool:
    """Wait for the reply, or until the server reports no subscriber; raises if the connection is lost."""
    no_subscriber = asyncio.ensure_future(unsubscribed.wait())
    try:
        await asyncio.wait(
            (exchange.done, no_subscriber), timeout=max(0, timeout_ms) / 1000, return_when=asyncio.FIRST_COMPLETED
        )
    finally:
        no_subscriber.cancel()
    if not exchange.done.done():
        return False
    exchange.done.result()
    return True


def _no_subscriber(subject: str) -> RetryError:
    model = subject.split(".")[-2]
    return RetryError(
        Code.TIMED_OUT,
        f"No manager and no dispatcher answers reads of {model!r}.",
        where=subject,
        hint="Does the model exist (`teatree models`)? Does the dispatcher run (`teatree up`)?",
    )


def _unanswered(subject: str) -> RetryError:
    model = subject.split(".")[-2]
    return RetryError(
        Code.TIMED_OUT,
        f"The read of {model!r} was not answered within the timeout and was cancelled.",
        where=subject,
        hint="Read less, or allow more time.",
    )


def _checked(reply: ReceivedMessage) -> ReceivedMessage:
    """Return a reply; raises the error if it is one by the NATS services convention."""
    code = reply.headers.get(HEADER_ERROR_CODE)
    if code is None:
        return reply
    raise _service_error(code, reply)


def _service_error(code: str, reply: ReceivedMessage) -> TeatreeError:
    try:
        error: Any = orjson.loads(reply.body)["error"]
        return named_error(error)
    except (ValueError, KeyError, TypeError, AttributeError):
        text = reply.headers.get(HEADER_ERROR, "no reason was given")
        return OperatorError(Code.INTERNAL, f"The read failed with {code}: {text}.", where=reply.subject)
