"""The bus: our connection to NATS, and with `nats_client` the only module that uses the nats-py library.

One bus belongs to one event loop. It reconnects for ever; requests that wait when the connection is lost fail at once
with `unavailable`, so that the caller retries instead of waiting for a time-out. Messages reach subscriptions through
sinks that take the bytes of the wire: nats-py's own queue, task and header parser per message cost more than all our
work on it (docs/decisions/0004).
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any

import nats.errors

from teatree.contracts.clock import SYSTEM_CLOCK, Clock
from teatree.contracts.environment import not_set
from teatree.contracts.errors import Code, RetryError
from teatree.contracts.probe import NO_PROBE, Probe
from teatree.contracts.retry import Pauses, Retry
from teatree.contracts.settings import NatsSettings
from teatree.messaging.connect_errors import (
    PlainServerError,
    check_url,
    client_context,
    connect_error,
    denied_error,
    wants_tls,
)
from teatree.messaging.frames import cause_text, check_subject, encode_frame, show_url
from teatree.messaging.headers import decode_headers, decode_status, encode_headers
from teatree.messaging.inbox import Exchange, Inbox, ReplySink
from teatree.messaging.jetstream import IS_IT_UP, NO_RESPONDERS, PubAck, api_error, read_ack
from teatree.messaging.message import ReceivedMessage, Sink, Subscription
from teatree.messaging.nats_client import NatsClient
from teatree.messaging.subjects import Subjects

CONNECT_TIMEOUT_S = 5
PING_INTERVAL_S = 5
PINGS_OUTSTANDING_MAX = 2
RECONNECT_WAIT_S = 0.25
SEND_BUFFER_BYTES_MAX = 4_000_000
"""Bytes that may wait to be written before a sender waits with them."""
SEND_TIMEOUT_S = 10
API_TIMEOUT_MS = 5_000
_DENIED = re.compile(r"[Pp]ermissions [Vv]iolation for \w+ to \"([^\"]+)\"")


# More than ten public methods: the one connection to NATS for all that is sent and received.
class Bus:
    """A connection to NATS with the subjects of one installation."""

    def __init__(self, client: NatsClient, settings: NatsSettings, probe: Probe, clock: Clock = SYSTEM_CLOCK) -> None:
        self.prefix = settings.prefix
        self.probe = probe
        """Where what uses this connection reports its points."""
        self.subjects = Subjects(settings.prefix)
        self.losses = 0
        """Times that the connection was lost."""
        self.last_error: str | None = None
        """The last error of the server or the network."""
        self.clock = clock
        self._client = client
        self._place = show_url(settings.url)
        self._inbox = Inbox()
        self._interrupted: dict[int, Callable[[], None]] = {}
        self._denied: dict[str, str] = {}
        """The server's errors, by the subject whose use they deny."""
        self._reconnected: list[Callable[[], None]] = []
        self._connected = asyncio.Event()
        self._closed = False
        self._connecting = True

    @classmethod
    async def connect(
        cls,
        settings: NatsSettings,
        *,
        name: str,
        wait_ms: int = 0,
        probe: Probe = NO_PROBE,
        clock: Clock = SYSTEM_CLOCK,
    ) -> Bus:
        """Return a connected bus; `name` shows in the server's monitoring.

        Keeps trying for `wait_ms`, then raises `unavailable`; raises at once what a retry does not mend:
        `not_authorized`, and `wrong_configuration` for an address or a certificate.
        """
        if not settings.url:
            raise not_set("TEATREE_NATS_URL", "NATS")
        pauses = Pauses(RECONNECT_WAIT_S * 1000, RECONNECT_WAIT_S * 1000)
        retry = Retry(pauses, wait_ms, clock=clock)
        return await retry.call_async(lambda: cls._connect_once(settings, name, probe, clock))

    @classmethod
    async def _connect_once(cls, settings: NatsSettings, name: str, probe: Probe, clock: Clock) -> Bus:
        check_url(settings.url)
        context = client_context(settings)
        client = NatsClient(must_use_tls=wants_tls(settings))
        bus = cls(client, settings, probe, clock)
        try:
            await client.connect(
                settings.url,
                name=name,
                user=settings.user,
                password=settings.password,
                tls=context,
                error_cb=bus._on_error,
                disconnected_cb=bus._on_disconnected,
                reconnected_cb=bus._on_reconnected,
                connect_timeout=CONNECT_TIMEOUT_S,
                max_reconnect_attempts=-1,
                # Jitter: many managers do not reconnect all at once.
                reconnect_time_wait=RECONNECT_WAIT_S * random.uniform(1, 2),  # type: ignore[arg-type]  # noqa: S311
                ping_interval=PING_INTERVAL_S,
                max_outstanding_pings=PINGS_OUTSTANDING_MAX,
                pending_size=SEND_BUFFER_BYTES_MAX,
                flush_timeout=SEND_TIMEOUT_S,
            )
        except (OSError, nats.errors.Error, PlainServerError, _FirstConnectError) as e:
            bus._connecting = False
            await client.close()
            cause = e.__cause__ if isinstance(e, _FirstConnectError) and isinstance(e.__cause__, Exception) else e
            raise connect_error(cause, settings) from None
        bus._connecting = False
        bus._connected.set()
        await client.add_sink(bus._inbox.filter, "", bus._inbox.push)
        return bus

    async def _on_error(self, error: Exception) -> None:
        self.last_error = cause_text(error)
        denied = _DENIED.search(self.last_error)
        if denied is not None:
            self._denied[denied[1]] = self.last_error
        if self._connecting:
            raise _FirstConnectError from error

    async def _on_disconnected(self) -> None:
        self._connected.clear()
        self.losses += 1
        self._client.forget_unsent()
        self._inbox.interrupted(self._lost())

    async def _on_reconnected(self) -> None:
        self._connected.set()
        for interrupted in [*self._interrupted.values(), *self._reconnected]:
            interrupted()

    def on_reconnect(self, callback: Callable[[], None]) -> None:
        """Have `callback` called whenever the connection was lost and restored."""
        self._reconnected.append(callback)

    def _lost(self) -> RetryError:
        return RetryError(
            Code.UNAVAILABLE,
            f"The connection to NATS is lost: {self.last_error or 'closed'}.",
            where=self._place,
            hint=IS_IT_UP,
        )

    def _check_allowed(self, *subjects: str) -> None:
        """Raise `not_authorized` if the server has denied one of the subjects."""
        for subject in subjects:
            if subject in self._denied:
                raise denied_error(self._denied[subject], subject)

    @property
    def is_connected(self) -> bool:
        """Whether the server can be reached now."""
        return self._connected.is_set() and not self._closed

    @property
    def server_version(self) -> str:
        """The version of the connected server, as it writes it."""
        return self._client.server_version

    def payload_bytes_max(self) -> int:
        """Return the bytes of headers and body that the server accepts in one message now."""
        return int(self._client.max_payload)

    async def wait_connected(self, timeout_ms: float) -> None:
        """Return when connected; raises `unavailable` if that takes longer."""
        if self.is_connected:
            return
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                await self._connected.wait()
        except TimeoutError:
            raise self._lost() from None

    async def close(self) -> None:
        """Send what waits to be sent, then disconnect; fails whatever still waits for a reply."""
        if self._closed:
            return
        self._closed = True
        self._inbox.interrupted(self._lost())
        await self._client.close()

    async def flush(self, timeout_ms: float = API_TIMEOUT_MS) -> None:
        """Wait until the server has seen all that was sent."""
        await self.wait_connected(timeout_ms)
        try:
            await self._client.round_trip(timeout_ms / 1000)
        except (nats.errors.Error, OSError):
            raise self._lost() from None

    # --- sending ---

    def frame(self, subject: str, body: bytes, headers: Mapping[str, str] | bytes | None, reply: str = "") -> bytes:
        """Return a message as the bytes that `send` takes; `headers` may be encoded already.

        Raises `body_too_large` for what the server would not take.
        """
        block = headers if isinstance(headers, bytes) else encode_headers(headers) if headers else b""
        return encode_frame(subject, body, block, reply, self.payload_bytes_max())

    async def send(self, frames: Iterable[bytes]) -> None:
        """Send frames in their order, all over one connection; raises `unavailable` when there is none or it breaks."""
        losses = self.losses

        def unless_lost() -> Iterator[bytes]:
            for frame in frames:
                if losses != self.losses or not self.is_connected:
                    raise self._lost()
                yield frame

        try:
            await self._client.send_frames(unless_lost())
        except (nats.errors.Error, OSError) as e:
            raise RetryError(
                Code.UNAVAILABLE, f"NATS cannot be reached: {cause_text(e)}.", where=self._place, hint=IS_IT_UP
            ) from e

    async def publish(self, subject: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        """Publish without a receipt."""
        check_subject(subject)
        await self.send((self.frame(subject, body, headers),))

    # --- requests and replies ---

    def open(self, sink_of: Callable[[Exchange], ReplySink]) -> Exchange:
        """Return an exchange: a reply subject, and a sink for what comes to it."""
        return self._inbox.open(sink_of)

    async def request(
        self,
        subject: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        timeout_ms: float = API_TIMEOUT_MS,
    ) -> ReceivedMessage:
        """Return the first reply; raises `timed_out`, or `unavailable` without a subscriber or a connection."""
        check_subject(subject)
        replies: list[tuple[bytes | None, bytes]] = []

        def sink_of(exchange: Exchange) -> ReplySink:
            def sink(_: bytes, block: bytes | None, body: bytes) -> None:
                replies.append((block, body))
                exchange.finish()

            return sink

        with self.open(sink_of) as exchange:
            frame = self.frame(subject, body, headers, exchange.reply)
            await self.wait_connected(timeout_ms)
            await self.send((frame,))
            try:
                await exchange.wait(timeout_ms, subject)
            except RetryError:
                self._check_allowed(subject, self._inbox.filter)
                raise
        block, reply = replies[0]
        if decode_status(block) == NO_RESPONDERS:
            raise RetryError(Code.UNAVAILABLE, f"There is no subscriber to {subject}.", where=subject, hint=IS_IT_UP)
        return ReceivedMessage(subject, decode_headers(block), reply)

    async def subscribe(
        self, subject: str, queue: str = "", *, pending_max: int = 65_536, pending_bytes_max: int = 64_000_000
    ) -> Subscription:
        """Return a subscription that is in force: what is published from now on arrives, or is reported as missing."""
        subscription = Subscription(subject, pending_max, pending_bytes_max)
        subscription.opened(
            await self.subscribe_sink(subject, subscription.push, queue, on_interrupted=subscription.interrupted)
        )
        return subscription

    async def subscribe_sink(
        self, subject: str, sink: Sink, queue: str = "", *, on_interrupted: Callable[[], None] | None = None
    ) -> Callable[[], Awaitable[None]]:
        """Hand every message on a subject to a sink; return how to end that.

        `on_interrupted` is called after the connection was lost and restored: messages may have been missed.
        """
        check_subject(subject)
        await self.wait_connected(API_TIMEOUT_MS)
        sid = await self._client.add_sink(subject, queue, sink)
        if on_interrupted is not None:
            self._interrupted[sid] = on_interrupted
        await self.flush()
        self._check_allowed(subject)

        async def unsubscribe() -> None:
            self._interrupted.pop(sid, None)
            await self._client.remove_sink(sid)

        return unsubscribe

    # --- JetStream ---

    async def js(
        self, call: str, payload: Mapping[str, Any] | None = None, timeout_ms: float = API_TIMEOUT_MS
    ) -> dict[str, Any]:
        """Call JetStream's API (`STREAM.INFO.REQUESTS`) and return its answer; raises its error as ours."""
        try:
            reply = await self.request(f"$JS.API.{call}", json.dumps(payload or {}).encode(), None, timeout_ms)
        except RetryError as e:
            if e.code is not Code.UNAVAILABLE or not self.is_connected:
                raise
            raise RetryError(
                Code.UNAVAILABLE, "JetStream does not answer on this server.", where=call, hint=IS_IT_UP
            ) from None
        answer: dict[str, Any] = json.loads(reply.body)
        if "error" in answer:
            raise api_error(answer["error"], call)
        return answer

    async def publish_log(
        self,
        subject: str,
        body: bytes,
        headers: Mapping[str, str] | None = None,
        timeout_ms: float = API_TIMEOUT_MS,
    ) -> PubAck:
        """Publish into a stream and return its receipt.

        Raises `body_too_large` before sending; `log_full`, `unavailable` (no stream takes it) or `timed_out`: then it
        may or may not be stored, and the same request id can be sent again.
        """
        try:
            reply = await self.request(subject, body, headers, timeout_ms)
        except RetryError as e:
            if e.code is not Code.UNAVAILABLE or not self.is_connected:
                raise
            raise RetryError(Code.UNAVAILABLE, f"No stream takes {subject}.", where=subject, hint=IS_IT_UP) from None
        return read_ack(reply.body, subject)


class _FirstConnectError(Exception):
    """Carries a connection's first failure out of nats-py, which would keep trying."""
