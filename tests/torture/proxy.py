"""A TCP proxy between our processes and a server: it cuts, holds, delays and loses what goes through it.

One thread and event loop for each proxy, in the process of the harness. Addresses are `host:port` or the path of a unix
socket. What HTTP faults do is done to whole connections: an answer in place of the server's, or none at all though the
server has done what it was asked.
"""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Literal

CHUNK_BYTES = 65_536
DELAY_S = 0.15
DRAIN_S = 0.2
"""Seconds for which a request is still read after it was answered in the server's place."""

Mode = Literal["pass", "cut", "half_open", "delay", "answer_500", "answer_503", "lose_reply"]
"""`cut`: no connection lives. `half_open`: they stay, and nothing comes through. `lose_reply`: the request arrives."""

ANSWERS = {"answer_500": b"500 Internal Server Error", "answer_503": b"503 Slow Down"}


class Proxy:
    """Forwards connections to one server, as the mode of the moment says."""

    def __init__(self, server: str, listen: str = "127.0.0.1:0") -> None:
        """`listen` with port 0 takes a free one: `address` tells which."""
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
        if held or mode == "cut":
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
        except OSError:  # the server is away: so is this
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
        """Forward one direction; `answer_to` is the client of a request's way."""
        while chunk := await source.read(CHUNK_BYTES):
            mode = self._mode
            self.hits += mode != "pass"
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
            target.write(chunk)
            await target.drain()
