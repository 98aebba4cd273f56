"""The garbage collector of a manager: cycles are freed when it is idle, and no collection delays work."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator

import pytest

from manual_clock import SleepingClock
from teatree.contracts.own_memory import OwnMemory
from teatree_manager import collector


class Node:
    """An object that refers to itself: only the collector frees it."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def _no_other_collection() -> Iterator[None]:
    thresholds = gc.get_threshold()
    gc.set_threshold(*collector.THRESHOLDS)
    yield
    gc.set_threshold(*thresholds)


async def _freed(idle_ms: list[float]) -> list[bool]:
    """Return whether a cycle that is made before each check is freed by it."""
    seen: list[bool] = []
    current = weakref.ref(Node())

    def idle_for() -> float:
        nonlocal current
        seen.append(current() is None)
        if len(seen) == len(idle_ms):
            raise asyncio.CancelledError
        current = weakref.ref(Node())
        return idle_ms[len(seen) - 1]

    with pytest.raises(asyncio.CancelledError):
        await collector.collect_when_idle(idle_for, SleepingClock())
    return seen[1:]


def test_garbage_in_cycles_is_freed_once_a_manager_that_has_worked_is_idle() -> None:
    """One collection after work, none at work and no second one in the same idle period."""
    idle = collector.IDLE_MS
    looks = [0, 0, idle / 2, idle, 2 * idle, 3 * idle, 0, idle, idle]
    assert asyncio.run(_freed(looks)) == [False, False, False, True, False, False, False, True]


def test_garbage_in_cycles_is_freed_at_work_when_memory_has_grown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large buffer in a cycle does not wait for an idle period; memory that stays large is collected once."""
    sizes = iter([0, 0, collector.GROWTH_BYTES + 1] + [collector.GROWTH_BYTES + 1] * 5)
    monkeypatch.setattr(collector, "own_memory", lambda: OwnMemory(next(sizes)))
    assert asyncio.run(_freed([0] * 5)) == [False, True, False, False]
