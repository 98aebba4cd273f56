"""Only the clock reads the time and sleeps; and the manual clock of the tests does what they rely on."""

from __future__ import annotations

import ast
import asyncio
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from manual_clock import START, ManualClock, SleepingClock
from teatree.contracts.clock import SYSTEM_CLOCK

ROOT = Path(__file__).parents[2]
READS = frozenset(
    """time.monotonic time.monotonic_ns time.time time.time_ns time.perf_counter time.perf_counter_ns time.sleep
    datetime.now datetime.utcnow datetime.today date.today asyncio.sleep get_running_loop().time loop.time
    loop.call_later loop.call_at""".split()
)
"""What only a clock does; `asyncio.sleep(0)`, which waits for nothing, is allowed."""
EXCEPTIONS = {
    "manager/teatree_manager/pipeline/kill_timer.py": "compared with the time of a file, which the system sets",
    "src/teatree/contracts/clock.py": "the clock",
    "src/teatree/contracts/failpoints.py": "a delay that a test asks for is one for other processes, too",
    "src/teatree/contracts/names.py": "the time within an id only sorts ids",
    "src/teatree/contracts/process.py": "waits for the end of other processes, which have their own time",
    "src/teatree/embedded/certificates.py": "a certificate's dates are compared by other programs",
    "src/teatree/embedded/postgres.py": "waits for a server's processes",
    "src/teatree/embedded/server.py": "waits for a server to start",
    "src/teatree/messaging/nats_client.py": "a time that nats-py compares with its own clock",
    "src/teatree/storage/objects/local.py": "compared with the times of files, which the system sets",
    "src/teatree/storage/versions/block_cache.py": "the same",
    "src/teatree/testing/launchers.py": "waits for processes",
    "src/teatree/testing/stores.py": "compared with the time of a store's server",
}
"""By file: why it reads the time itself."""


def reads(path: Path) -> Iterator[str]:
    """Yield where a module reads the time or sleeps, called or passed on, as `line: what`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nothing = {
        id(node.func)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and node.args
        and isinstance(node.args[0], ast.Constant)
        and node.args[0].value == 0
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and id(node) not in nothing:
            what = ast.unparse(node)
            if any(what == each or what.endswith(f".{each}") for each in READS):
                yield f"{node.lineno}: {what}"
        if isinstance(node, ast.ImportFrom) and node.module == "time":
            yield f"{node.lineno}: from time import"


def test_only_the_clock_reads_the_time() -> None:
    """Whatever waits or measures does so through the clock that it is given, but for a short list with reasons."""
    found: dict[str, list[str]] = {}
    for folder in ("src", "manager", "dispatcher"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if lines := list(reads(path)):
                found[str(path.relative_to(ROOT))] = lines
    assert {name: lines for name, lines in found.items() if name not in EXCEPTIONS} == {}
    assert set(EXCEPTIONS) <= set(found)


async def test_the_system_clock_waits_for_events_and_times() -> None:
    """An event ends a wait; without it, the time does. Both kinds of waiting return whether it is set."""
    event, thread_event = asyncio.Event(), threading.Event()
    assert not await SYSTEM_CLOCK.wait_async(event, 0.001)
    assert not SYSTEM_CLOCK.wait(thread_event, 0.001)
    called = asyncio.Event()
    SYSTEM_CLOCK.call_later(0.001, called.set)
    SYSTEM_CLOCK.call_later(0.001, event.set).cancel()
    assert await SYSTEM_CLOCK.wait_async(called, 10)
    assert not event.is_set()
    thread_event.set()
    assert SYSTEM_CLOCK.wait(thread_event, 10)
    assert SYSTEM_CLOCK.monotonic_ms() >= 1000 * SYSTEM_CLOCK.monotonic() - 1000
    assert SYSTEM_CLOCK.now().utcoffset() == timedelta(0)


async def test_the_manual_clock_wakes_in_order_what_comes_due() -> None:
    """Sleeps, waits and calls end at their moments, those in between first; what is not due still waits."""
    clock = ManualClock()
    woken: list[str] = []

    async def sleeper(name: str, *seconds: float) -> None:
        for each in seconds:
            await clock.sleep_async(each)
            woken.append(f"{name} {clock.now_s:g}")

    tasks = [asyncio.create_task(sleeper("a", 1, 1, 1)), asyncio.create_task(sleeper("b", 1.5, 10))]
    clock.call_later(2.5, lambda: woken.append("call"))
    await clock.pass_time(3)
    assert woken == ["a 1001", "b 1001.5", "a 1002", "call", "a 1003"]
    assert not tasks[1].done()
    event = asyncio.Event()
    wait = asyncio.create_task(clock.wait_async(event, 5))
    await clock.pass_time(1)
    assert not wait.done()
    event.set()
    assert await wait
    assert not await clock.wait_async(asyncio.Event(), 0)
    await clock.pass_time(10)
    assert woken[-1] == "b 1011.5"
    assert clock.now() == START + timedelta(seconds=1014)


async def test_the_manual_clock_wakes_threads() -> None:
    """A thread that sleeps or waits goes to the moment that it waits for."""
    clock, event = ManualClock(), threading.Event()
    sleep = asyncio.create_task(asyncio.to_thread(clock.sleep, 2))
    wait = asyncio.create_task(asyncio.to_thread(clock.wait, event, 2))
    await asyncio.sleep(0.01)
    clock.advance(1)
    assert not sleep.done()
    while not (sleep.done() and wait.done()):
        clock.advance(1)
        await asyncio.sleep(0.001)
    assert await wait is False


def test_a_sleeping_clock_never_waits() -> None:
    """Each sleep moves it."""
    clock = SleepingClock(0.0)
    clock.sleep(3)
    asyncio.run(clock.sleep_async(4))
    assert (clock.now_s, clock.slept_s) == (7.0, [3, 4])
