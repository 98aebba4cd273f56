"""Direct reads of models at rest: heard beside whoever answers, they bring a manager back.

The dispatcher answers only when nobody else can: the model does not exist, or its manager comes or goes
(`unavailable`: ask again). It never answers while somebody listens.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable

from attrs import frozen

from teatree.contracts.errors import Code, RetryError, TeatreeError
from teatree.messaging.bus import Bus
from teatree.messaging.service import reply_error, service_name

WAITING_MAX = 1_000
"""Reads that wait to be looked at; further ones are passed over, and asked again by their senders."""
PING_TIMEOUT_MS = 200
PING_EVERY_S = 0.25


@frozen
class Read:
    """A direct read that was heard."""

    model: str
    reply: str


Answer = Callable[[str], Awaitable[TeatreeError | None]]
"""Takes the model of a read, brings its manager back if need be, and returns what to tell the sender, if anything."""


class ReadObserver:
    """Hears all direct reads of an installation."""

    def __init__(self, bus: Bus, answer: Answer) -> None:
        self._bus = bus
        self._answer = answer
        self._waiting: deque[Read] = deque()
        self._arrived = asyncio.Event()

    async def open(self) -> None:
        """Listen from now on."""
        await self._bus.subscribe_sink(self._bus.subjects.queries_all, self._push)

    async def run(self) -> None:
        """Look at reads one by one until cancelled."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._waiting:
                await self._handle(self._waiting.popleft())

    def _push(self, subject: bytes, reply: bytes, _block: bytes | None, _body: bytes) -> None:
        if len(self._waiting) < WAITING_MAX:
            self._waiting.append(Read(subject.decode("utf-8", "replace").split(".")[2], reply.decode()))
            self._arrived.set()

    async def _handle(self, read: Read) -> None:
        try:
            error = await self._answer(read.model)
        except TeatreeError as e:
            error = e
        if error is not None and read.reply:
            try:
                await reply_error(self._bus, read.reply, error)
            except RetryError:
                self._waiting.clear()  # the connection is lost: nobody who asked can hear us any more


class Pings:
    """Whether a model's service answers, asked at most every quarter of a second."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._answers: dict[str, tuple[float, bool]] = {}

    async def has_service(self, model: str) -> bool:
        """Return whether somebody listens for reads of the model; who is silent but there counts as listening."""
        now_s = time.monotonic()
        asked_s, answer = self._answers.get(model, (0.0, False))
        if now_s - asked_s < PING_EVERY_S:
            return answer
        if len(self._answers) > WAITING_MAX:
            self._answers.clear()
        try:
            await self._bus.request(f"$SRV.PING.{service_name(self._bus.prefix, model)}", timeout_ms=PING_TIMEOUT_MS)
            answer = True
        except RetryError as e:
            answer = e.code is Code.TIMED_OUT
        self._answers[model] = (now_s, answer)
        return answer
