"""The suite of launchers: what the dispatcher relies on."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import TypeVar

import pytest

from teatree_dispatcher.launchers.base import Launcher, ManagerRun

WAIT_S_MAX = 30.0
"""Seconds that a manager may take to start or to end."""
T = TypeVar("T")


class LauncherPlace(ABC):
    """Where the launchers of one test put their managers; empty at first.

    Programs of yours that only run until they are ended may take the managers' place.
    """

    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    """What makes the event loop; None for asyncio's."""

    @abstractmethod
    def open(self) -> Launcher:
        """Return a new launcher of this place; called on the event loop."""

    @abstractmethod
    async def end(self, model: str, code: int, reason: str = "") -> None:
        """Make a model's running manager end, with this exit code or, if it is negative, by this signal.

        With a reason it first writes an `ExitReason` with this message, as managers do.
        """

    @abstractmethod
    async def change(self, model: str) -> None:
        """Change a model's files as an operator would who repairs them."""


# More than ten public methods: each is a test.
class LauncherSuite:
    """What every launcher does. Override the fixture `place`."""

    @pytest.fixture
    def place(self) -> LauncherPlace:
        """Return a place where nothing runs."""
        raise NotImplementedError

    def test_at_first_nothing_runs(self, place: LauncherPlace) -> None:
        """A new place has no managers."""

        async def scenario(launcher: Launcher) -> None:
            assert list(await launcher.list()) == []
            assert list(await launcher.find("sales")) == []
            assert list(await launcher.unfinished()) == []
            await launcher.dismiss("sales")

        _run(place, scenario)

    @pytest.mark.parametrize("model", ["sales", "a_b_1", "m" * 63])
    def test_a_launched_manager_runs(self, place: LauncherPlace, model: str) -> None:
        """A manager is listed from its launch on, whatever a model's name may be, and belongs to its model alone."""

        async def scenario(launcher: Launcher) -> None:
            await launcher.prepare()
            run = await launcher.launch(model)
            assert (run.model, run.exit) == (model, None)
            assert [(r.model, r.exit) for r in await launcher.list()] == [(model, None)]
            assert [(r.model, r.exit) for r in await launcher.find(model)] == [(model, None)]
            assert list(await launcher.find("other")) == []

        _run(place, scenario)

    @pytest.mark.parametrize("code", [0, 1, 75, 78, 79, -9])
    def test_an_end_is_listed_until_it_is_released(self, place: LauncherPlace, code: int) -> None:
        """Exit codes arrive as they are, also while nothing watches; after the release there is nothing left of it."""

        async def scenario(launcher: Launcher) -> None:
            run = await launcher.launch("sales")
            await place.end("sales", code)
            for _ in range(2):
                (ended,) = await _until(lambda: _ended(launcher, "sales"))
                assert (ended.id, ended.exit is not None and ended.exit.code) == (run.id, code)
                assert ended in await launcher.list()
            await launcher.release(ended)
            await launcher.release(ended)
            assert list(await launcher.list()) == []

        _run(place, scenario)

    def test_the_reason_of_an_end(self, place: LauncherPlace) -> None:
        """What a manager wrote as its reason comes with its end; one that wrote none has none."""

        async def scenario(launcher: Launcher) -> None:
            for reason in ("the disk is full", ""):
                await launcher.launch("sales")
                await place.end("sales", 1, reason)
                (ended,) = await _until(lambda: _ended(launcher, "sales"))
                assert ended.exit is not None
                assert (ended.exit.reason.message if ended.exit.reason else "") == reason
                await launcher.release(ended)

        _run(place, scenario)

    def test_watching(self, place: LauncherPlace) -> None:
        """A watch begins with what is listed, ended ones too, and then yields each start and each end."""

        async def scenario(launcher: Launcher) -> None:
            await launcher.launch("a")
            await launcher.launch("b")
            await place.end("b", 75)
            await _until(lambda: _ended(launcher, "b"))
            async with aclosing(_watched(launcher)) as runs:
                seen = [await _next(runs), await _next(runs)]
                assert sorted((r.model, r.exit and r.exit.code) for r in seen) == [("a", None), ("b", 75)]
                await launcher.launch("c")
                started = await _next(runs)
                assert (started.model, started.exit) == ("c", None)
                await place.end("a", -9)
                ended = await _next(runs)
                assert (ended.model, ended.exit and ended.exit.code) == ("a", -9)

        _run(place, scenario)

    def test_managers_outlive_their_launcher(self, place: LauncherPlace) -> None:
        """A launcher that closes leaves its managers running; the next one lists and can dismiss them."""

        async def first(launcher: Launcher) -> None:
            await launcher.launch("sales")
            await asyncio.sleep(0)

        async def second(launcher: Launcher) -> None:
            await _until(lambda: _running(launcher, "sales"))
            assert [r.model for r in await launcher.list()] == ["sales"]

            async def gone() -> bool:
                await launcher.dismiss("sales")
                return not await _running(launcher, "sales")

            await _until(gone)

        _run(place, first)
        _run(place, second)

    def test_a_dismissed_manager_ends_with_0(self, place: LauncherPlace) -> None:
        """A manager that is asked to end does so as one that leaves."""

        async def scenario(launcher: Launcher) -> None:
            await launcher.launch("sales")

            async def ended() -> Sequence[ManagerRun]:
                await launcher.dismiss("sales")
                return await _ended(launcher, "sales")

            (run,) = await _until(ended)
            assert run.exit is not None
            assert run.exit.code == 0

        _run(place, scenario)

    def test_a_second_manager_of_a_model(self, place: LauncherPlace) -> None:
        """Launching where one runs is no error, and the model stays served."""

        async def scenario(launcher: Launcher) -> None:
            await launcher.launch("sales")
            await _until(lambda: _running(launcher, "sales"))
            await launcher.launch("sales")
            assert await _running(launcher, "sales")
            assert {r.model for r in await launcher.list()} == {"sales"}

        _run(place, scenario)

    def test_what_a_killed_manager_left(self, place: LauncherPlace) -> None:
        """A model whose manager was killed is unfinished until it has one again; one that left is not."""

        async def scenario(launcher: Launcher) -> None:
            for code, expected in ((-9, ["sales"]), (0, [])):
                await launcher.launch("sales")
                assert list(await launcher.unfinished()) == []
                await place.end("sales", code)
                (ended,) = await _until(lambda: _ended(launcher, "sales"))
                assert list(await launcher.unfinished()) == expected
                await launcher.release(ended)
                assert list(await launcher.unfinished()) == expected

        _run(place, scenario)

    def test_a_fingerprint_shows_a_repair(self, place: LauncherPlace) -> None:
        """A model's fingerprint changes when an operator changes its files, and only then."""

        async def scenario(launcher: Launcher) -> None:
            await launcher.launch("sales")
            await place.end("sales", 78)
            await _until(lambda: _ended(launcher, "sales"))
            before = await launcher.fingerprint("sales")
            assert await launcher.fingerprint("sales") == before
            await place.change("sales")
            assert await launcher.fingerprint("sales") != before

        _run(place, scenario)


def _run(place: LauncherPlace, scenario: Callable[[Launcher], Awaitable[None]]) -> None:
    """Run a scenario with a launcher of the place, which is closed afterwards."""

    async def opened() -> None:
        launcher = place.open()
        try:
            await scenario(launcher)
        finally:
            await launcher.close()

    with asyncio.Runner(loop_factory=place.loop_factory) as runner:
        runner.run(opened())


async def _running(launcher: Launcher, model: str) -> Sequence[ManagerRun]:
    return [run for run in await launcher.find(model) if run.exit is None]


async def _ended(launcher: Launcher, model: str) -> Sequence[ManagerRun]:
    return [run for run in await launcher.find(model) if run.exit is not None]


async def _watched(launcher: Launcher) -> AsyncGenerator[ManagerRun, None]:
    async for run in launcher.watch():
        yield run


async def _next(runs: AsyncIterator[ManagerRun]) -> ManagerRun:
    async with asyncio.timeout(WAIT_S_MAX):
        return await anext(runs)


async def _until(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask again until the answer is true; return it."""
    async with asyncio.timeout(WAIT_S_MAX):
        while not (answer := await ask()):  # noqa: ASYNC110  a launcher has no event for it
            await asyncio.sleep(0.01)
        return answer
