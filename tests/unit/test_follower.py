"""What a manager's followers do while a part is unavailable."""

from __future__ import annotations

import asyncio
import errno

import pytest
from typing_extensions import override

from manual_clock import ManualClock, SleepingClock
from teatree.contracts.clock import Clock
from teatree.contracts.errors import Code, RetryError, TeatreeError
from teatree.contracts.retry import Backoff
from teatree.contracts.settings import BreakerSettings
from teatree.storage.breaker import Breaker, CircuitOpenError
from teatree_manager.followers.base import Follower, retrying
from teatree_manager.memory import started_threads

SETTINGS = BreakerSettings(failures_max=3, open_ms_min=100, open_ms_max=3_000)


class Part:
    """A part that is unavailable until it is back, behind a breaker."""

    def __init__(self, clock: ManualClock) -> None:
        self.breaker = Breaker("The sea", SETTINGS, clock)
        self.is_back = False
        self.tries = 0

    def ask(self) -> None:
        """Call it."""
        with self.breaker.guard():
            self.tries += 1
            if not self.is_back:
                raise RetryError(Code.UNAVAILABLE, "No answer.")


class _AskingFollower(Follower):
    """Calls a part each time that it is woken."""

    name = "asking"

    def __init__(self, part: Part, clock: Clock) -> None:
        super().__init__(clock=clock)
        self._part = part

    @override
    async def work(self) -> None:
        self._part.ask()


async def test_waiting_work_resumes_when_the_part_is_back() -> None:
    """A refused caller waits for the breaker, not for a time that it chooses."""
    part, waits = Part(ManualClock()), ManualClock()
    for _ in range(SETTINGS.failures_max):
        with pytest.raises(RetryError) as caught:
            part.ask()
    assert isinstance(caught.value, CircuitOpenError)
    pause = asyncio.create_task(Backoff(clock=waits).pause(caught.value))
    await waits.pass_time(1)
    assert not pause.done()  # the breaker's clock stands
    with part.breaker.guard(always=True):
        pass
    await waits.pass_time(1)
    assert pause.done()


async def test_many_followers_try_as_seldom_as_one() -> None:
    """Followers call an unavailable part once in each pause, all together; when it is back, all resume."""
    clock, waits = ManualClock(), ManualClock()
    part = Part(clock)
    followers = [_AskingFollower(part, waits) for _ in range(8)]
    running = [asyncio.create_task(follower.run()) for follower in followers]
    for follower in followers:
        follower.wake()
    await waits.pass_time(1)
    for looks in range(1, 6):
        assert part.tries == SETTINGS.failures_max - 1 + looks
        clock.now_s += 3
        await waits.pass_time(1)
    assert all(follower.error is not None and "The sea is unavailable" in follower.error for follower in followers)
    part.is_back = True
    clock.now_s += 3
    await waits.pass_time(1)
    await asyncio.gather(*(follower.drained() for follower in followers))
    assert [follower.error for follower in followers] == [None] * 8
    for task in running:
        task.cancel()


class Short(Follower):
    """A follower whose process lacks something at first."""

    name = "short"

    def __init__(self, *errors: Exception) -> None:
        super().__init__(clock=SleepingClock())
        self._errors = list(errors)

    @override
    async def work(self) -> None:
        if self._errors:
            raise self._errors.pop(0)


async def test_no_memory_left_ends_no_follower() -> None:
    """A follower that lacks memory, a thread or the disk for its work tries again; any other fault ends its manager."""
    disk = OSError(errno.EROFS, "Read-only file system")
    follower = Short(MemoryError("malloc"), RuntimeError("can't start new thread"), disk)
    task = asyncio.create_task(follower.run())
    follower.wake()
    async with asyncio.timeout(30):
        await follower.drained()
    assert follower.error is None
    task.cancel()
    faulty = Short(RuntimeError("a fault"))
    faulty.wake()
    with pytest.raises(RuntimeError, match="a fault"):
        await faulty.run()


async def test_a_read_without_memory_is_tried_again() -> None:
    """A retried read waits for memory as for an unavailable part."""
    errors: list[Exception] = [MemoryError("malloc")]
    reported: list[TeatreeError] = []

    def read() -> int:
        if errors:
            raise errors.pop()
        return 7

    assert await retrying(read, reported.append) == 7
    assert [error.code for error in reported] == [Code.BUSY]


def test_threads_that_run_before_memory_is_short() -> None:
    """All threads for blocking work run from the start: no later one can be refused."""
    executor = started_threads(8)
    assert len(executor._threads) == 8
    executor.shutdown()
