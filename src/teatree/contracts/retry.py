"""Retries: work that may succeed later is tried again after growing, jittered pauses, up to a deadline.

`Retry` repeats one call, blocking or not. `Backoff` holds the pauses of a loop that does more than repeat a call.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Protocol, TypeVar

from attrs import field, frozen

from teatree.contracts.clock import SYSTEM_CLOCK, Clock
from teatree.contracts.errors import Code, RetryError, TeatreeError

T = TypeVar("T")
LOOK_MS = 50
"""Milliseconds between checks whether a breaker lets calls through again."""


class Gate(Protocol):
    """What refuses calls for a time, such as a circuit breaker."""

    def refuses(self) -> bool:
        """Return whether a call would be refused now."""


class CallRefusedError(RetryError):
    """The call was not made: it is made as soon as `breaker` lets calls through."""

    breaker: Gate | None = None
    """What to wait for; None in a copy, which may have come from another process."""


@frozen
class Pauses:
    """Pauses that double, with jitter: equal pauses of many processes would hit a part that returns all at once."""

    ms_min: float = 100
    ms_max: float = 3_000
    """The longest pause before an unavailable part is tried again: waiting work resumes that soon after its return."""

    def after(self, failures: int) -> float:
        """Return the seconds to wait after so many failures in a row."""
        limit_ms = min(self.ms_max, self.ms_min * 2 ** min(failures - 1, 32))
        return random.uniform(limit_ms / 2, limit_ms) / 1000  # noqa: S311  no secret


class Backoff:
    """The pauses of one row of failures."""

    def __init__(self, pauses: Pauses | None = None, clock: Clock = SYSTEM_CLOCK) -> None:
        self._pauses = pauses or Pauses()
        self._clock = clock
        self._failures = 0

    def reset(self) -> None:
        """Begin with short pauses again."""
        self._failures = 0

    async def pause(self, error: TeatreeError | None = None) -> None:
        """Wait for the next try: a growing time, or until the breaker lets calls through that refused this one."""
        for seconds in self.sleeps(error):
            await self._clock.sleep_async(seconds)

    def sleeps(self, error: TeatreeError | None = None) -> Iterator[float]:
        """Yield the seconds to sleep, one after the other, before the next try."""
        breaker = error.breaker if isinstance(error, CallRefusedError) else None
        if breaker is None:
            self._failures += 1
            yield self._pauses.after(self._failures)
            return
        for _ in range(math.ceil(self._pauses.ms_max / LOOK_MS)):  # bounded: the caller may have to stop meanwhile
            if not breaker.refuses():
                return
            yield LOOK_MS / 1000


def may_pass(error: TeatreeError) -> bool:
    """Return whether the same call can succeed later."""
    return isinstance(error, RetryError)


def is_unavailable(error: TeatreeError) -> bool:
    """Return whether an error means that a part does not answer now."""
    return isinstance(error, RetryError) and error.code is Code.UNAVAILABLE


def _unreported(_: TeatreeError) -> None:
    pass


@frozen
class Retry:
    """How a call is repeated until it succeeds; after the last try, the error of that try is raised."""

    pauses: Pauses = field(factory=Pauses)
    time_ms_max: float = math.inf
    """No pause is begun that would end later than this after the first try."""
    tries_max: float = math.inf
    again: Callable[[TeatreeError], bool] = may_pass
    """Returns whether to try again after an error; any other error is raised at once."""
    report: Callable[[TeatreeError], None] = _unreported
    """Called with each error before the pause that follows it."""
    clock: Clock = SYSTEM_CLOCK

    def call(self, work: Callable[[], T]) -> T:
        """Return what a blocking call returns."""
        tries = _Tries(self)
        while True:
            try:
                return work()
            except TeatreeError as e:
                tries.failed(e)
                error = e
            for seconds in tries.sleeps(error):
                self.clock.sleep(seconds)

    async def call_async(self, work: Callable[[], Awaitable[T]]) -> T:
        """Return what a coroutine function returns."""
        tries = _Tries(self)
        while True:
            try:
                return await work()
            except TeatreeError as e:
                tries.failed(e)
                error = e
            for seconds in tries.sleeps(error):
                await self.clock.sleep_async(seconds)

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Return what a blocking call returns, made in a thread."""
        return await self.call_async(partial(asyncio.to_thread, work))


class _Tries:
    """The tries of one call."""

    def __init__(self, retry: Retry) -> None:
        self._retry = retry
        self._backoff = Backoff(retry.pauses, retry.clock)
        self._end_s = retry.clock.monotonic() + retry.time_ms_max / 1000
        self._made = 0

    def failed(self, error: TeatreeError) -> None:
        """Count a try that failed; raises its error if no other follows."""
        self._made += 1
        if self._made >= self._retry.tries_max or not self._retry.again(error):
            raise error

    def sleeps(self, error: TeatreeError) -> Iterator[float]:
        """Yield the seconds to sleep before the next try; raises the error instead of sleeping past the deadline."""
        sleeps = self._backoff.sleeps(error)
        first = next(sleeps, 0.0)  # none, if the breaker lets calls through again already
        self._check_time(first, error)
        self._retry.report(error)
        yield first
        for seconds in sleeps:
            self._check_time(seconds, error)
            yield seconds

    def _check_time(self, seconds: float, error: TeatreeError) -> None:
        if self._retry.clock.monotonic() + seconds > self._end_s:
            raise error
