"""Starting managers from several tasks at once, with a launcher whose answers take time, and without its events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import attrs
import structlog
from typing_extensions import override

from dispatcher_world import FakeLauncher, until
from teatree.contracts.clock import SYSTEM_CLOCK
from teatree.contracts.errors import Code, RetryError
from teatree.contracts.probe import NO_PROBE
from teatree.contracts.settings import DispatcherSettings
from teatree_dispatcher.catalog_view import CatalogView
from teatree_dispatcher.launchers.base import ManagerRun
from teatree_dispatcher.managers import Managers
from teatree_dispatcher.model_registry import ModelRegistry, ModelStatus
from teatree_dispatcher.placement import PublishedState

SETTINGS = DispatcherSettings(restart_ms_min=20)


class SlowLauncher(FakeLauncher):
    """Answers as an API on another machine does: later, while other tasks run."""

    @override
    async def launch(self, model: str) -> ManagerRun:
        await asyncio.sleep(0.01)
        return await super().launch(model)

    @override
    async def list(self) -> Sequence[ManagerRun]:
        await asyncio.sleep(0.002)
        return await super().list()


class BrokenWatch(FakeLauncher):
    """Its watch fails; what it lists stays true."""

    @override
    async def watch(self) -> AsyncIterator[ManagerRun]:
        for run in await self.list():
            yield run
        raise RetryError(Code.UNAVAILABLE, "The API does not answer.")


def managers(launcher: FakeLauncher, settings: DispatcherSettings = SETTINGS) -> Managers:
    """Return the managers of a launcher."""
    log = structlog.get_logger()
    return Managers(launcher, settings, log, CatalogView(None, settings, log), NO_PROBE, SYSTEM_CLOCK)


async def ask_nothing(status: ModelStatus) -> PublishedState:
    """Return a model's state as it is known."""
    return status.published or PublishedState()


async def test_one_manager_for_a_model_that_several_tasks_need() -> None:
    """The loop and direct reads need a model at the same time: one manager is launched, and all find it served."""
    launcher = SlowLauncher()
    both = managers(launcher)
    status = ModelStatus("sales")
    assert await asyncio.gather(*(both.start(status) for _ in range(5))) == [True] * 5
    assert launcher.launched == ["sales"]
    assert await both.start(status)
    assert launcher.launched == ["sales"]


async def test_no_more_than_there_are_places() -> None:
    """However many models are started at once, and however late they are listed, the limit holds."""
    launcher = SlowLauncher()
    few = managers(launcher, attrs.evolve(SETTINGS, managers_max=3))
    started = await asyncio.gather(*(few.start(ModelStatus(f"m{i}")) for i in range(8)))
    assert sorted(launcher.launched) == sorted(launcher.alive)
    assert (len(launcher.alive), started.count(True)) == (3, 3)
    assert len(few.waiting) == 5


async def test_a_launch_that_fails_keeps_no_place() -> None:
    """A model whose manager could not be launched is not served, and its place is free."""

    class Failing(SlowLauncher):
        @override
        async def launch(self, model: str) -> ManagerRun:
            raise RetryError(Code.UNAVAILABLE, "The API does not answer.")

    one = managers(Failing(), attrs.evolve(SETTINGS, managers_max=1))
    for model in ("a", "b"):
        failed = await asyncio.gather(one.start(ModelStatus(model)), return_exceptions=True)
        assert isinstance(failed[0], RetryError)
        assert not await one.is_served(model)


async def test_ends_are_found_without_a_watch() -> None:
    """An end is taken in once, in the next round, though the watch breaks; the wait before a restart is the same."""
    launcher = BrokenWatch()
    alone = managers(launcher)
    registry = ModelRegistry()
    status = registry.status("sales")
    woken = asyncio.Event()
    watching = asyncio.create_task(alone.watch(woken.set))
    await alone.start(status)
    launcher.end("sales", -9)
    assert await alone.take_exits(registry, ask_nothing, all_models=True) == {"sales"}
    assert status.restart.crashes == 1
    assert await alone.take_exits(registry, ask_nothing, all_models=True) == set()
    assert not await alone.is_due(status)
    watching.cancel()


async def test_an_end_that_is_found_while_its_model_is_looked_at() -> None:
    """What ends between two questions is taken in before the model is decided on."""
    launcher = FakeLauncher()
    some = managers(launcher)
    status = ModelStatus("sales")
    await some.start(status)
    assert await some.look(status, ask_nothing)
    launcher.end("sales", 78)
    assert not await some.look(status, ask_nothing)
    assert status.restart.stopped_by == launcher.print
    assert launcher.ended == []


async def test_an_end_wakes() -> None:
    """With a watch, the end of a manager is looked at without waiting for the timer."""
    launcher = FakeLauncher()
    some = managers(launcher)
    registry = ModelRegistry()
    woken = asyncio.Event()
    watching = asyncio.create_task(some.watch(woken.set))
    await some.start(registry.status("sales"))
    await asyncio.sleep(0.01)
    assert not woken.is_set()
    launcher.end("sales", 0)
    await until(woken.is_set)
    assert await some.take_exits(registry, ask_nothing, all_models=False) == {"sales"}
    watching.cancel()
