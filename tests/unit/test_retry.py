"""Retries: growing, jittered pauses, a deadline, a predicate, and the wait for a circuit breaker."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from manual_clock import SleepingClock
from teatree.contracts.errors import Code, RequestError, RetryError, TeatreeError
from teatree.contracts.retry import LOOK_MS, Backoff, CallRefusedError, Pauses, Retry


class ClosedGate:
    """Refuses calls until a time."""

    def __init__(self, time: SleepingClock, until_s: float) -> None:
        self._time = time
        self._until_s = until_s

    def refuses(self) -> bool:
        """Return whether a call would be refused now."""
        return self._time.now_s < self._until_s


def fails(times: int, code: Code = Code.UNAVAILABLE) -> Callable[[], int]:
    """Return work that fails so many times and then returns how often it was called."""
    calls = 0

    def work() -> int:
        nonlocal calls
        calls += 1
        if calls <= times:
            raise RetryError(code, f"failure {calls}")
        return calls

    return work


def refused(gate: ClosedGate) -> CallRefusedError:
    """Return the error of a call that a gate refused."""
    error = CallRefusedError(Code.UNAVAILABLE, "refused")
    error.breaker = gate
    return error


def test_pauses_double_with_jitter_up_to_the_longest() -> None:
    """Each pause lies in the upper half of a limit that doubles."""
    time = SleepingClock(0.0)
    reported: list[TeatreeError] = []
    assert Retry(Pauses(100, 500), report=reported.append, clock=time).call(fails(5)) == 6
    assert [e.message for e in reported] == [f"failure {n}" for n in range(1, 6)]
    for slept, limit in zip(time.slept_s, (0.1, 0.2, 0.4, 0.5, 0.5), strict=True):
        assert limit / 2 <= slept <= limit
    assert Pauses(100, 500).after(10_000) <= 0.5


def test_no_pause_ends_after_the_deadline() -> None:
    """The error of the last try is raised rather than slept past the deadline; without time there is one try."""
    time = SleepingClock(0.0)
    with pytest.raises(RetryError, match="failure") as caught:
        Retry(Pauses(100, 100), time_ms_max=1_000, clock=time).call(fails(1_000))
    assert 0.9 < time.now_s <= 1  # no pause is longer than 100 ms
    assert caught.value.message == f"failure {len(time.slept_s) + 1}"
    with pytest.raises(RetryError, match="failure 1"):
        Retry(time_ms_max=0, clock=time).call(fails(1))


def test_tries_are_bounded() -> None:
    """After the last allowed try its error is raised, without a pause."""
    time = SleepingClock(0.0)
    with pytest.raises(RetryError, match="failure 3"):
        Retry(tries_max=3, clock=time).call(fails(3))
    assert len(time.slept_s) == 2


def test_only_errors_that_may_pass_are_retried() -> None:
    """By default that is a `RetryError`; a predicate can choose others."""

    def refuse() -> int:
        raise RequestError(Code.BAD_ARGUMENT, "wrong")

    with pytest.raises(RequestError):
        Retry(clock=SleepingClock(0.0)).call(refuse)
    busy = Retry(again=lambda e: e.code is Code.BUSY, clock=SleepingClock(0.0))
    assert busy.call(fails(2, Code.BUSY)) == 3
    with pytest.raises(RetryError, match="failure 1"):
        busy.call(fails(2))


async def test_the_forms_that_do_not_block_are_the_same() -> None:
    """A coroutine function and a call in a thread are retried by the same rules."""
    time = SleepingClock(0.0)
    work = fails(3)

    async def work_async() -> int:
        return work()

    assert await Retry(clock=time).call_async(work_async) == 4
    assert await Retry(clock=time).in_thread(fails(1)) == 2
    assert len(time.slept_s) == 4
    with pytest.raises(RetryError, match="failure 2"):
        await Retry(tries_max=2, clock=time).in_thread(fails(2))


async def test_a_refused_call_waits_for_its_breaker() -> None:
    """The next try follows as soon as the breaker lets calls through, and its wait is no failure of the part."""
    time = SleepingClock(0.0)
    backoff = Backoff(clock=time)
    await backoff.pause(refused(ClosedGate(time, 0.52)))
    assert 0.52 <= time.now_s < 0.52 + 2 * LOOK_MS / 1000
    time.slept_s.clear()
    await backoff.pause()
    assert time.slept_s[0] <= 0.1


def test_the_wait_for_a_breaker_is_bounded() -> None:
    """A breaker that stays open is asked again after the longest pause, and the deadline holds for it too."""
    time = SleepingClock(0.0)
    gate = ClosedGate(time, 1_000)
    assert sum(1 for seconds in Backoff(clock=time).sleeps(refused(gate)) if seconds) == 3_000 / LOOK_MS

    def work() -> int:
        raise refused(gate)

    with pytest.raises(CallRefusedError):
        Retry(time_ms_max=500, clock=time).call(work)
    assert time.now_s <= 0.5 + LOOK_MS / 1000
