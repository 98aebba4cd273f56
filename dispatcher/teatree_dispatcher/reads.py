"""Direct reads of stopped models: the dispatcher receives all direct reads, and starts the managers they need.

It answers only when no manager can: the model does not exist, or its manager starts or leaves (`unavailable`: ask
again). It never answers while a service listens.

Models are looked at concurrently, a bounded number at once, and each by one look at a time: reads that arrive meanwhile
wait for that model's next look and share it. So a slow store delays only the models whose chains it reads slowly, and a
client that asks a hundred times costs no more than one that asks once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from importlib.metadata import version

from teatree.contracts.errors import Code, RetryError, TeatreeError
from teatree.contracts.formats.requests import CANCEL_FUNCTION, HEADER_VERSION
from teatree.messaging.bus import Bus
from teatree.messaging.frames import reply_subject
from teatree.messaging.service import reply_error, service_name

WAITING_MAX = 1_000
"""Reads that wait for a look; further ones are dropped, and repeated by their senders."""
LOOKS_MAX = 16
"""Models looked at at once: each may hold a thread until the store's time-out."""
PING_TIMEOUT_MS = 200
PING_EVERY_S = 0.25


AnswerRead = Callable[[str], Awaitable[TeatreeError | None]]
"""Takes the model of a read, starts its manager if need be, and returns the error to answer with, if any."""


class ReadObserver:
    """Receives all direct reads of an installation."""

    def __init__(self, bus: Bus, answer: AnswerRead) -> None:
        self._bus = bus
        self._answer = answer
        self._probe = bus.probe
        self._headers = {HEADER_VERSION: version("teatree")}
        self._waiting: dict[str, list[str]] = {}
        """Reply subjects of the waiting reads, by model, in the order of each model's first read."""
        self._count = 0
        self._looks: dict[str, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()
        self._fault: BaseException | None = None
        """A fault of ours in a look: it ends the dispatcher, as in the loop."""

    async def open(self) -> None:
        """Subscribe to the reads."""
        await self._bus.subscribe_sink(self._bus.subjects.queries_all, self._push)

    async def run(self) -> None:
        """Look at the models of reads until cancelled."""
        try:
            while True:
                await self._changed.wait()
                self._changed.clear()
                if self._fault is not None:
                    raise self._fault
                self._begin_looks()
        finally:
            for look in self._looks.values():
                look.cancel()
            await asyncio.gather(*self._looks.values(), return_exceptions=True)

    def _push(self, subject: bytes, reply: bytes, _block: bytes | None, _body: bytes) -> None:
        _, _, model, function = subject.decode("utf-8", "replace").split(".")
        to = reply_subject(reply)
        if function == CANCEL_FUNCTION or self._count >= WAITING_MAX or not to:
            return
        self._count += 1
        self._waiting.setdefault(model, []).append(to)
        self._changed.set()

    def _begin_looks(self) -> None:
        for model in [model for model in self._waiting if model not in self._looks][: LOOKS_MAX - len(self._looks)]:
            replies = self._waiting.pop(model)
            self._count -= len(replies)
            look = self._looks[model] = asyncio.create_task(self._look(model, replies))
            look.add_done_callback(partial(self._ended, model))

    def _ended(self, model: str, look: asyncio.Task[None]) -> None:
        del self._looks[model]
        self._changed.set()
        if not look.cancelled() and (fault := look.exception()) is not None:
            self._fault = fault

    async def _look(self, model: str, replies: list[str]) -> None:
        try:
            with self._probe.step("dispatcher.read", model=model, replies=replies):
                error = await self._answer(model)
        except TeatreeError as e:
            error = e
        if error is None:
            return
        for reply in filter(None, replies):
            try:
                await reply_error(self._bus, reply, error, self._headers)
            except RetryError:
                self._waiting.clear()  # the connection is lost: no earlier read can be answered any more
                self._count = 0
                return


class Pings:
    """Pings of models' services, of each at most one in a quarter of a second."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._answers: dict[str, tuple[float, bool]] = {}

    async def has_service(self, model: str) -> bool:
        """Return whether a service listens for reads of the model, even if it is too busy to answer the ping."""
        now_s = self._bus.clock.monotonic()
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
