"""Our nats-py client: messages reach sinks as the bytes of the wire, and frames are written as bytes."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Iterable
from typing import Any
from urllib.parse import ParseResult

import nats.errors
from nats.aio.client import DEFAULT_BUFFER_SIZE, Client
from nats.aio.subscription import Subscription as NatsSubscription
from nats.aio.transport import TcpTransport
from nats.protocol.parser import AWAITING_CONTROL_LINE, Parser
from typing_extensions import override

from teatree.messaging.connect_errors import PlainServerError
from teatree.messaging.message import Sink

_CONTROL = (b"MSG ", b"HMSG ")
_HMSG_FIELDS = 5
_MSG_FIELDS = 4
_CLOSE_TIMEOUT_S = 2
"""Seconds that the end of a connection is waited for: a peer that does not answer takes 30 to end TLS otherwise."""


class _Parser(Parser):
    """Reads MSG and HMSG in one pass over the buffer and hands them to our sinks; leaves the rest to nats-py."""

    nc: NatsClient

    @override
    async def parse(self, data: bytes = b"") -> None:
        if self.state != AWAITING_CONTROL_LINE:
            await super().parse(data)
            return
        buffer: bytearray = self.buf
        buffer += data
        start = 0
        while buffer.startswith(_CONTROL, start):
            line_end = buffer.find(b"\r\n", start)
            if line_end < 0:
                break
            fields = buffer[start:line_end].split()
            body_start = line_end + 2
            end = body_start + int(fields[-1])
            if len(buffer) < end + 2:
                break
            block = None
            reply = b""
            if fields[0] == b"HMSG":
                headers_end = body_start + int(fields[-2])
                block = bytes(buffer[body_start:headers_end])
                body_start = headers_end
                if len(fields) > _HMSG_FIELDS:
                    reply = bytes(fields[3])
            elif len(fields) > _MSG_FIELDS:
                reply = bytes(fields[3])
            sink = self.nc.sinks.get(int(fields[2]))
            if sink is not None:
                sink(bytes(fields[1]), reply, block, bytes(buffer[body_start:end]))
            start = end + 2
        del buffer[:start]
        if buffer and not buffer.startswith(_CONTROL):
            await super().parse()


class _Transport(TcpTransport):
    """A connection that can become a TLS one without a warning, and whose end is waited for briefly."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    @override
    async def connect_tls(
        self,
        uri: str | ParseResult,
        ssl_context: ssl.SSLContext,
        buffer_size: int,
        connect_timeout: int,
    ) -> None:
        plain = self._io_writer
        if plain is None:
            raise ConnectionError("nats: not connected")
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=buffer_size)
        protocol = asyncio.StreamReaderProtocol(reader)
        protocol._over_ssl = True  # type: ignore[attr-defined]  # noqa: SLF001  or asyncio warns at the connection's end
        host = uri if isinstance(uri, str) else uri.hostname
        try:
            async with asyncio.timeout(connect_timeout):
                transport = await loop.start_tls(plain.transport, protocol, ssl_context, server_hostname=host)
        except BaseException:
            # The handshake took the connection from its stream, which would wait for its end for ever.
            plain.transport.abort()
            self._io_reader = self._io_writer = None
            raise
        if transport is None:
            raise ConnectionError("nats: the server closed the connection during the TLS handshake")
        self._io_reader, self._io_writer = reader, asyncio.StreamWriter(transport, protocol, reader, loop)

    @override
    async def wait_closed(self) -> None:
        writer = self._io_writer
        if writer is None:
            return
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await writer.wait_closed()
        except TimeoutError:
            writer.transport.abort()


class NatsClient(Client):
    """nats-py's client with sinks and frames written as bytes; a server's error does not close it."""

    def __init__(self, *, must_use_tls: bool = False) -> None:
        super().__init__()
        self._must_use_tls = must_use_tls
        self.sinks: dict[int, Sink] = {}
        self._ps = _Parser(self)

    @property
    def server_version(self) -> str:
        """The version of the connected server, as it writes it."""
        return str(self._server_info.get("version", ""))

    async def add_sink(self, subject: str, queue: str, sink: Sink) -> int:
        """Subscribe, so that the sink misses nothing from the first message on; return the subscription's number."""
        self._sid += 1
        sid = self._sid
        self.sinks[sid] = sink
        subscription = NatsSubscription(self, sid, subject, queue=queue)
        self._subs[sid] = subscription
        await self._send_subscribe(subscription)
        return sid

    async def remove_sink(self, sid: int) -> None:
        """End the subscription of a sink."""
        self.sinks.pop(sid, None)
        self._subs.pop(sid, None)
        if self.is_connected:
            await self._send_unsubscribe(sid)

    async def send_frames(self, frames: Iterable[bytes]) -> None:
        """Write frames of the protocol; waits while too much is waiting to be written."""
        for frame in frames:
            await self._send_command(frame)
        if self._flush_queue is not None and self._flush_queue.empty():
            await self._flush_pending()

    def forget_unsent(self) -> None:
        """Drop what waits to be written: it must not arrive, late and out of order, over the next connection."""
        self._pending.clear()
        self._pending_data_size = 0

    async def round_trip(self, timeout_s: float) -> None:
        """Wait until the server has seen all that was sent before: PING queues behind it, unlike in `Client.flush`."""
        pong: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._pongs.append(pong)
        await self._send_command(b"PING\r\n")
        await self._flush_pending()
        # Never cancelled: nats-py resolves every pong it gets, and breaks on one that was.
        _, late = await asyncio.wait((pong,), timeout=timeout_s)
        if late:
            raise nats.errors.FlushTimeoutError

    @override
    async def _connect_to_server(self, s: Any) -> None:
        s.last_attempt = time.monotonic()
        self._transport = _Transport()
        await self._transport.connect(s.uri, DEFAULT_BUFFER_SIZE, self.options["connect_timeout"])

    @override
    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        """Handle a server's INFO; no password is sent to one without TLS if TLS was asked for."""
        if initial_connection and self._must_use_tls:
            if not (info.get("tls_required") or info.get("tls_available")):
                raise PlainServerError
            info["tls_required"] = True
        await super()._process_info(info, initial_connection)

    @override
    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        """Receive a message from nats-py's own parser, after a PING for example."""
        sink = self.sinks.get(sid)
        if sink is not None:
            sink(bytes(subject), bytes(reply), headers, data)

    @override
    async def _process_err(self, err_msg: str) -> None:
        """Report a server's error; if the server is about to close the connection, connect again."""
        error = nats.errors.Error(f"nats: {err_msg}")
        await self._error_cb(error)
        if "permissions violation" not in err_msg and "invalid subject" not in err_msg:
            await self._process_op_err(error)
