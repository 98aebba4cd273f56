"""A TCP proxy between our processes and a server: it cuts, holds, delays and loses data.

One thread and event loop for each proxy, in the process of the harness. Addresses are `host:port` or the path of a unix
socket. HTTP faults hit whole connections: an answer in place of the server's, or none at all although the server has
served the request.
"""

from __future__ import annotations

import asyncio
import random
import threading
from pathlib import Path
from typing import Literal

CHUNK_BYTES = 65_536
DELAY_S = 0.15
DRAIN_S = 0.2
"""Seconds for which a request is still read after it was answered in the server's place."""

Mode = Literal["pass", "cut", "half_open", "delay", "answer_500", "answer_503", "lose_reply", "lose", "reorder"]
"""`cut`: no connection is open. `half_open`: they stay open and forward nothing. `lose_reply`: the request arrives.

`lose` and `reorder` are for NATS: some messages are dropped, some hints and notices arrive after later ones.
"""

ANSWERS = {"answer_500": b"500 Internal Server Error", "answer_503": b"503 Slow Down"}


LOST_SHARE, LATE_SHARE = 0.1, 0.3


class Messages:
    """What a NATS server sends on one connection, cut into protocol lines and whole messages."""

    def __init__(self) -> None:
        self._rest = b""
        self._late: list[bytes] = []
        self._rng = random.Random(0)
        self.hits = 0

    def through(self, mode: Mode, chunk: bytes) -> bytes:
        """Return what is forwarded; in any other mode, all that was held and the chunk."""
        self._rest += chunk
        if mode not in ("lose", "reorder"):
            held, self._rest, self._late = b"".join([*self._late, self._rest]), b"", []
            return held
        found: list[bytes] = []
        while (message := self._next()) is not None:
            found += self._met(mode, message)
        return b"".join(found)

    def _next(self) -> bytes | None:
        line, end, _ = self._rest.partition(b"\r\n")
        is_message = line.startswith((b"MSG ", b"HMSG "))
        size = len(line) + 2 + (int(line.rsplit(b" ", 1)[1]) + 2 if is_message and end else 0)
        if not end or len(self._rest) < size:
            return None
        message, self._rest = self._rest[:size], self._rest[size:]
        return message

    def _met(self, mode: Mode, message: bytes) -> list[bytes]:
        if not message.startswith((b"MSG ", b"HMSG ")):
            return [message]
        if mode == "lose" and self._rng.random() < LOST_SHARE:
            self.hits += 1
            return []
        is_hint = any(part in message.split(b" ", 2)[1] for part in (b".wake.", b".notify."))
        if mode == "reorder" and is_hint and not self._late and self._rng.random() < LATE_SHARE:
            self.hits += 1
            self._late = [message]
            return []
        late, self._late = self._late, []
        return [message, *late]


class Proxy:
    """Forwards connections to one server according to its mode."""

    def __init__(self, server: str, listen: str = "127.0.0.1:0") -> None:
        """`listen` with port 0 takes a free one: `address` has it."""
        self._server = server
        self._mode: Mode = "pass"
        self.hits = 0
        """Chunks and connections that a fault has met."""
        self._loop = asyncio.new_event_loop()
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._changed = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        if listen.startswith("/"):
            Path(listen).unlink(missing_ok=True)
        self.address: str = asyncio.run_coroutine_threadsafe(self._listen(listen), self._loop).result(10)

    def set(self, mode: Mode) -> None:
        """Change the mode; connections that a fault held are cut when it ends."""
        asyncio.run_coroutine_threadsafe(self._set(mode), self._loop).result(10)

    def close(self) -> None:
        """Cut everything and end the thread."""
        self.set("cut")
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    async def _set(self, mode: Mode) -> None:
        held = self._mode == "half_open"
        self._mode = mode
        self._changed.set()
        self._changed = asyncio.Event()
        if held or mode in ("cut", "lose", "reorder"):  # messages can be parsed only from a connection's beginning
            self._cut_all()

    def _cut_all(self) -> None:
        for pair in list(self._pairs):
            self.hits += self._mode == "cut"
            for writer in pair:
                writer.transport.abort()

    async def _listen(self, listen: str) -> str:
        if listen.startswith("/"):
            await asyncio.start_unix_server(self._serve, listen)
            return listen
        host, _, port = listen.rpartition(":")
        server = await asyncio.start_server(self._serve, host, int(port))
        return f"{host}:{server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._mode == "cut":
            self.hits += 1
            writer.transport.abort()
            return
        try:
            if self._server.startswith("/"):
                theirs, to_them = await asyncio.open_unix_connection(self._server)
            else:
                host, _, port = self._server.rpartition(":")
                theirs, to_them = await asyncio.open_connection(host, int(port))
        except OSError:  # the server is unavailable: so is this
            writer.transport.abort()
            return
        pair = (writer, to_them)
        self._pairs.add(pair)
        try:
            up = asyncio.create_task(self._pump(reader, to_them, answer_to=writer))
            down = asyncio.create_task(self._pump(theirs, writer))
            await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
            for task in (up, down):
                task.cancel()
            await asyncio.gather(up, down, return_exceptions=True)
        finally:
            self._pairs.discard(pair)
            for one in pair:
                one.close()

    async def _pump(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, answer_to: asyncio.StreamWriter | None = None
    ) -> None:
        """Forward one direction; `answer_to` is the client, if requests go this way."""
        messages = Messages() if answer_to is None and self._mode in ("lose", "reorder") else None
        while chunk := await source.read(CHUNK_BYTES):
            mode = self._mode
            self.hits += mode not in ("pass", "lose", "reorder")
            if mode == "half_open":
                await self._changed.wait()
                return
            if mode == "delay":
                await asyncio.sleep(DELAY_S)
            elif mode == "lose_reply" and answer_to is None:
                target.transport.abort()
                return
            elif answer_to is not None and mode in ANSWERS:
                answer_to.write(b"HTTP/1.1 " + ANSWERS[mode] + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                await answer_to.drain()
                await asyncio.sleep(DRAIN_S)
                return
            if messages is not None:
                before = messages.hits
                chunk = messages.through(mode, chunk)
                self.hits += messages.hits - before
            target.write(chunk)
            await target.drain()
