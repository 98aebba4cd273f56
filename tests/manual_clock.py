"""A clock that a test moves."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from attrs import define, field
from typing_extensions import override

from teatree.contracts.clock import Clock, SystemClock, Timer

START = datetime(2026, 1, 1, tzinfo=UTC)
ROUNDS = 20
"""Rounds of the event loop after each moment: what waited for it has then run until it waits again."""
LOOK_S = 0.001


@define(eq=False)
class _Due:
    """A call that is to come."""

    at_s: float
    number: int
    loop: asyncio.AbstractEventLoop = field(repr=False)
    call: Callable[[], object] = field(repr=False)
    is_over: bool = False

    def cancel(self) -> None:
        self.is_over = True

    def make(self) -> None:
        if not self.is_over:
            self.is_over = True
            self.loop.call_soon_threadsafe(self.call)


class ManualClock(Clock):
    """Stands still until the test advances it; waits end when their moment comes.

    Threads that wait notice it within a millisecond. In an event loop, `pass_time` lets everything that comes due run.
    """

    def __init__(self, now_s: float = 1_000.0) -> None:
        self.now_s = now_s
        """The monotonic time; `advance` also wakes what waits."""
        self.slept_s: list[float] = []
        """The times for which something slept."""
        self._moved = threading.Condition()
        self._due: list[_Due] = []
        self._numbers = itertools.count()

    # --- moving it ---

    def advance(self, seconds: float) -> None:
        """Move on; wake what waits for a moment up to then."""
        with self._moved:
            self.now_s += seconds
            due = sorted((d for d in self._due if d.at_s <= self.now_s), key=lambda d: (d.at_s, d.number))
            self._due = [d for d in self._due if d.at_s > self.now_s and not d.is_over]
            self._moved.notify_all()
        for one in due:
            one.make()

    async def pass_time(self, seconds: float) -> None:
        """Move on from one moment for which something waits to the next; all of them run in between."""
        end_s = self.now_s + seconds
        await self._let_run()
        while (next_s := min((d.at_s for d in self._due if not d.is_over), default=end_s)) < end_s:
            self.advance(max(0.0, next_s - self.now_s))
            await self._let_run()
        self.advance(max(0.0, end_s - self.now_s))
        await self._let_run()

    async def _let_run(self) -> None:
        for _ in range(ROUNDS):
            await asyncio.sleep(0)

    # --- the clock ---

    @override
    def now(self) -> datetime:
        return START + timedelta(seconds=self.now_s)

    @override
    def monotonic(self) -> float:
        return self.now_s

    @override
    def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        with self._moved:
            end_s = self.now_s + seconds
            self._moved.wait_for(lambda: self.now_s >= end_s)

    @override
    def wait(self, event: threading.Event, seconds: float) -> bool:
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            if event.wait(LOOK_S):
                return True
        return event.is_set()

    @override
    async def sleep_async(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        await self.wait_async(asyncio.Event(), seconds)

    @override
    async def wait_async(self, event: asyncio.Event, seconds: float) -> bool:
        over = asyncio.Event()
        timer = self.call_later(seconds, over.set)
        waits = [asyncio.ensure_future(each.wait()) for each in (event, over)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
            for each in waits:
                each.cancel()
        return event.is_set()

    @override
    def call_later(self, seconds: float, call: Callable[[], object]) -> Timer:
        due = _Due(self.now_s + seconds, next(self._numbers), asyncio.get_running_loop(), call)
        if seconds <= 0:
            due.make()
        else:
            self._due.append(due)
        return due


class SleepingClock(ManualClock):
    """A manual clock that each sleep advances, so that it is over at once."""

    @override
    def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        self.advance(seconds)

    @override
    async def sleep_async(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        self.advance(seconds)


class QuickClock(SystemClock):
    """Real time that runs several times as fast, for parts that work with servers; the time of day is the real one."""

    def __init__(self, speed: float) -> None:
        self._speed = speed

    @override
    def monotonic(self) -> float:
        return super().monotonic() * self._speed

    @override
    def sleep(self, seconds: float) -> None:
        super().sleep(seconds / self._speed)

    @override
    def wait(self, event: threading.Event, seconds: float) -> bool:
        return super().wait(event, seconds / self._speed)

    @override
    async def sleep_async(self, seconds: float) -> None:
        await super().sleep_async(seconds / self._speed)

    @override
    async def wait_async(self, event: asyncio.Event, seconds: float) -> bool:
        return await super().wait_async(event, seconds / self._speed)

    @override
    def call_later(self, seconds: float, call: Callable[[], object]) -> Timer:
        return super().call_later(seconds / self._speed, call)
