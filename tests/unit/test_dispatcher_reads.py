"""Direct reads that the dispatcher answers: models concurrently, each by one look at a time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, cast

import pytest

from teatree.contracts.errors import Code, RequestError, RetryError, TeatreeError
from teatree.contracts.probe import NO_PROBE
from teatree.messaging.bus import Bus
from teatree.messaging.subjects import Subjects
from teatree_dispatcher import reads
from teatree_dispatcher.reads import ReadObserver


class _FakeBus:
    """Takes a subscription and records the answers."""

    def __init__(self) -> None:
        self.subjects = Subjects("t")
        self.sink: Callable[[bytes, bytes, bytes | None, bytes], None] = lambda *_: None
        self.answers: dict[str, str] = {}
        self.probe = NO_PROBE

    async def subscribe_sink(self, _: str, sink: Any) -> None:
        self.sink = sink

    async def publish(self, reply: str, body: bytes, _: Mapping[str, str]) -> None:
        self.answers[reply] = json.loads(body)["error"]["code"]

    def ask(self, model: str, reply: str, function: str = "query") -> None:
        """Send a read as a client does."""
        self.sink(f"t.query.{model}.{function}".encode(), reply.encode(), None, b"{}")


class Looks:
    """Looks at models; a model's look ends when its gate is open."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.gates: dict[str, asyncio.Event] = {}

    async def __call__(self, model: str) -> TeatreeError | None:
        self.begun.append(model)
        if model in self.gates:
            await self.gates[model].wait()
        if model == "fault":
            raise ValueError(model)
        return (
            RetryError(Code.UNAVAILABLE, "Ask again.") if model != "gone" else RequestError(Code.UNKNOWN_MODEL, "No.")
        )


@pytest.fixture
def bus() -> _FakeBus:
    """Return a fake connection."""
    return _FakeBus()


@pytest.fixture
def looks() -> Looks:
    """Return looks that end at once."""
    return Looks()


@pytest.fixture
async def running(bus: _FakeBus, looks: Looks) -> AsyncIterator[asyncio.Task[None]]:
    """Run an observer."""
    observer = ReadObserver(cast("Bus", bus), looks)
    await observer.open()
    task = asyncio.create_task(observer.run())
    yield task
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def let_run() -> None:
    """Let all tasks run until they wait."""
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.mark.usefixtures("running")
async def test_a_slow_look_holds_up_its_own_model_only(bus: _FakeBus, looks: Looks) -> None:
    """The store is slow for one model; reads of others are answered meanwhile."""
    looks.gates["slow"] = asyncio.Event()
    bus.ask("slow", "r1")
    bus.ask("fast", "r2")
    bus.ask("gone", "r3")
    await let_run()
    assert bus.answers == {"r2": "unavailable", "r3": "unknown_model"}
    looks.gates["slow"].set()
    await let_run()
    assert bus.answers["r1"] == "unavailable"


@pytest.mark.usefixtures("running")
async def test_reads_of_one_model_share_a_look(bus: _FakeBus, looks: Looks) -> None:
    """All waiting reads are answered by one look; reads that arrive during a look are answered by the next."""
    looks.gates["slow"] = asyncio.Event()
    bus.ask("slow", "r0")
    bus.ask("slow", "r1")
    await let_run()
    for number in range(2, 100):
        bus.ask("slow", f"r{number}")
    await let_run()
    assert looks.begun == ["slow"]
    looks.gates["slow"].set()
    await let_run()
    assert looks.begun == ["slow", "slow"]
    assert len(bus.answers) == 100


@pytest.mark.usefixtures("running")
async def test_looks_are_bounded(bus: _FakeBus, looks: Looks, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more models are looked at at once than may be; the others follow, and reads beyond the bound are dropped."""
    monkeypatch.setattr(reads, "LOOKS_MAX", 3)
    monkeypatch.setattr(reads, "WAITING_MAX", 8)
    looks.gates |= {f"m{number}": asyncio.Event() for number in range(10)}
    for number in range(10):
        bus.ask(f"m{number}", f"r{number}")
    await let_run()
    assert looks.begun == ["m0", "m1", "m2"]
    for gate in looks.gates.values():
        gate.set()
    await let_run()
    assert sorted(bus.answers) == [f"r{number}" for number in range(8)]


@pytest.mark.usefixtures("running")
async def test_a_read_given_up_wakes_nothing(bus: _FakeBus, looks: Looks) -> None:
    """A client's message that it waits no longer is not a read."""
    bus.ask("sales", "r1", "cancel")
    await let_run()
    assert looks.begun == []


async def test_a_fault_of_ours_ends_the_observer(bus: _FakeBus, running: asyncio.Task[None]) -> None:
    """It must not stay unseen: it ends the dispatcher, which is started again."""
    bus.ask("fault", "r1")
    with pytest.raises(ValueError, match="fault"):
        await asyncio.wait_for(running, 5)
