"""Our nats-py client: messages reach sinks as the bytes of the wire, and frames are written as bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import nats.errors
from nats.aio.client import Client
from nats.aio.subscription import Subscription as NatsSubscription
from nats.protocol.parser import AWAITING_CONTROL_LINE, Parser
from typing_extensions import override

from teatree.messaging.message import Sink

_CONTROL = (b"MSG ", b"HMSG ")
_HMSG_FIELDS = 5
_MSG_FIELDS = 4


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


class NatsClient(Client):
    """nats-py's client with sinks, frames written as bytes, and no way to close itself over a server's error."""

    def __init__(self) -> None:
        super().__init__()
        self.sinks: dict[int, Sink] = {}
        self._ps = _Parser(self)

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
    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        """Take a message that nats-py's own parser met, after a PING for example."""
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
