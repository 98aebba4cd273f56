"""The clock: every module reads the time and waits through the one that it is given, so that tests can move it.

`SYSTEM_CLOCK` is the real one. Timeouts that only guard an answer from a server stay with `asyncio.timeout`.
"""

from __future__ import annotations

import asyncio
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

from typing_extensions import override


class Timer(Protocol):
    """A call that is to come."""

    def cancel(self) -> None:
        """Prevent it, unless it was made already."""


class Clock(ABC):
    """Returns the time and waits; any thread may use it."""

    @abstractmethod
    def now(self) -> datetime:
        """Return the time of day, in UTC: it may jump."""

    @abstractmethod
    def monotonic(self) -> float:
        """Return seconds since some moment: for durations."""

    def monotonic_ms(self) -> float:
        """Return the same in milliseconds."""
        return self.monotonic() * 1000

    @abstractmethod
    def sleep(self, seconds: float) -> None:
        """Block this thread for a time."""

    @abstractmethod
    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Block this thread until an event is set, or for a time; return whether it is set."""

    @abstractmethod
    async def sleep_async(self, seconds: float) -> None:
        """Wait for a time."""

    @abstractmethod
    async def wait_async(self, event: asyncio.Event, seconds: float) -> bool:
        """Wait until an event is set, or for a time; return whether it is set."""

    @abstractmethod
    def call_later(self, seconds: float, call: Callable[[], object]) -> Timer:
        """Make a call in this event loop after a time."""


class SystemClock(Clock):
    """The time of the operating system, and of the running event loop."""

    @override
    def now(self) -> datetime:
        return datetime.now(UTC)

    @override
    def monotonic(self) -> float:
        return time.monotonic()

    @override
    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    @override
    def wait(self, event: threading.Event, seconds: float) -> bool:
        return event.wait(seconds)

    @override
    async def sleep_async(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    @override
    async def wait_async(self, event: asyncio.Event, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                return await event.wait()
        except TimeoutError:
            return event.is_set()

    @override
    def call_later(self, seconds: float, call: Callable[[], object]) -> Timer:
        return asyncio.get_running_loop().call_later(seconds, call)


SYSTEM_CLOCK = SystemClock()
"""The clock of every process outside tests."""
