"""A log, a store, a dispatcher and fake managers: the fixtures of the dispatcher's tests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime

import structlog
from typing_extensions import override

from teatree.contracts.exit_reason import ExitReason
from teatree.contracts.formats.manifest import Manifest, ManifestKind, ModelState, StreamStamp
from teatree.contracts.probe import Listener, Point
from teatree.contracts.settings import DispatcherSettings
from teatree.functions.registry import built_in_functions
from teatree.messaging.bus import Bus
from teatree.messaging.last_requests import last_requests
from teatree.messaging.log import position_at
from teatree.messaging.notices import last_notice
from teatree.messaging.streams import log_state
from teatree.storage.catalog.catalog import Catalog
from teatree.storage.objects.base import ObjectStore
from teatree.storage.versions.chain import Chain
from teatree_dispatcher.catalog_view import CatalogView
from teatree_dispatcher.context import DispatcherContext
from teatree_dispatcher.launchers.base import Launcher, ManagerExit, ManagerRun
from teatree_dispatcher.loop import Dispatcher

SETTINGS = DispatcherSettings(
    poll_ms=20, request_log_days=1.0, restart_ms_min=20, restart_ms_max=200, purge_interval_ms=50
)


class FakeLauncher(Launcher):
    """Records what was launched; its managers run until the test ends them."""

    def __init__(self, alive: set[str] | None = None) -> None:
        """`alive` are the models whose managers run, of other launchers too."""
        self.launched: list[str] = []
        self.alive = set() if alive is None else alive
        self.ended: list[ManagerRun] = []
        self.crashed: set[str] = set()
        self.print = "0"
        self.dies_with: int | None = None
        self.reason: ExitReason | None = None
        self.when_asked: Callable[[str], None] | None = None
        self._watchers: list[asyncio.Queue[ManagerRun]] = []

    @override
    async def launch(self, model: str) -> ManagerRun:
        self.launched.append(model)
        self.crashed.discard(model)
        self.alive.add(model)
        self._report(ManagerRun(model, model))
        if self.dies_with is not None:
            self.end(model, self.dies_with, self.reason)
        return ManagerRun(model, model)

    @override
    async def list(self) -> Sequence[ManagerRun]:
        return [*(ManagerRun(model, model) for model in sorted(self.alive)), *self.ended]

    @override
    async def find(self, model: str) -> Sequence[ManagerRun]:
        if self.when_asked is not None:
            self.when_asked(model)
        return await super().find(model)

    @override
    async def watch(self) -> AsyncIterator[ManagerRun]:
        self._watchers.append(asyncio.Queue())
        for run in await self.list():
            yield run
        while True:
            yield await self._watchers[-1].get()

    @override
    async def release(self, run: ManagerRun) -> None:
        self.ended = [ended for ended in self.ended if ended is not run]

    @override
    async def dismiss(self, model: str) -> None:
        if model in self.alive:
            self.end(model, 0)

    @override
    async def unfinished(self) -> Sequence[str]:
        return sorted(self.crashed)

    @override
    async def fingerprint(self, model: str) -> str:
        return self.print

    def end(self, model: str, code: int, reason: ExitReason | None = None) -> None:
        """End a manager."""
        self.alive.discard(model)
        self.ended.append(ManagerRun(model, model, ManagerExit(code, reason)))
        self._report(self.ended[-1])

    def _report(self, run: ManagerRun) -> None:
        for watcher in self._watchers:
            watcher.put_nowait(run)


class RoundCounter(Listener):
    """Counts the rounds of dispatchers over all models, also those that fail."""

    def __init__(self) -> None:
        self.count = 0

    @override
    def reached(self, point: Point) -> None:
        """Ignore instants."""

    @override
    def begun(self, point: Point) -> None:
        """Ignore begins."""

    @override
    def ended(self, point: Point, error: BaseException | None) -> None:
        self.count += point.name == "dispatcher.look"


class World:
    """A log, a store, and a dispatcher that runs beside the test."""

    def __init__(self, bus: Bus, store: ObjectStore, created: str, rounds: RoundCounter) -> None:
        """Start nothing yet; `rounds` listens to the probe of `bus`."""
        self.bus = bus
        self._rounds = rounds
        self.store = store
        self.created = created
        self.accepted_at: dict[int, datetime] = {}
        self.launcher = FakeLauncher()
        self.dispatcher = self.make(self.launcher)
        self.tasks: list[asyncio.Task[None]] = []
        self.stop = asyncio.Event()

    def make(
        self, launcher: Launcher, settings: DispatcherSettings = SETTINGS, catalog: Catalog | None = None
    ) -> Dispatcher:
        """Return a dispatcher that does not run yet."""
        log = structlog.get_logger()
        view = CatalogView(catalog, settings, log, self.bus.prefix)
        context = DispatcherContext(self.bus, built_in_functions(), log, settings)
        return Dispatcher(context, self.store, view, launcher)

    def start(self, dispatcher: Dispatcher | None = None) -> None:
        """Run a dispatcher."""
        self.tasks.append(asyncio.create_task((dispatcher or self.dispatcher).run(self.stop)))

    async def close(self) -> None:
        """Stop every dispatcher; raises what one of them raised."""
        self.stop.set()
        for task in self.tasks:
            await task

    async def send(self, model: str, function: str, request_id: str, **headers: str) -> int:
        """Publish a request; return its sequence."""
        subject = f"{self.bus.prefix}.request.{model}.{function}"
        seq = (await self.bus.publish_log(subject, b"{}", {"Teatree-Request-Id": request_id, **headers})).seq
        found = await position_at(self.bus, seq)
        if found is not None:
            self.accepted_at[seq] = found.at
        return seq

    def publish(self, model: str, offset: int, state: ModelState, created: str | None = None) -> None:
        """Create the next version of a model, as its manager would."""
        chain = Chain(self.store, self.bus.prefix, model)
        newest = chain.newest_version()
        now = datetime.now(UTC)
        chain.create(
            Manifest(
                model=model,
                goal_model_id=chain.goal_model_id,
                version=newest + 1,
                write_id="0" * 16,
                parent_write_id="",
                kind=ManifestKind.BATCH,
                epoch=1,
                state=state,
                at=now,
                log_at=self.accepted_at.get(offset, now),
                offset=offset,
                stream=StreamStamp(self.bus.subjects.requests_stream, created or self.created),
                content_version=newest + 1,
                content_write_id="0" * 16,
                user_version=newest + 1,
                last_effect_seq=offset,
                announced_version=0,
            )
        )

    async def rounds(self, count: int = 5, timeout_s: float = 30) -> None:
        """Return after several more rounds of each dispatcher, whatever they take."""
        end = self._rounds.count + count * len(self.tasks)
        await until(lambda: self._rounds.count >= end, timeout_s)

    async def outcome(self, model: str, request_id: str, timeout_s: float = 10) -> dict[str, object]:
        """Return a request's notice as soon as there is one."""
        subject = f"{self.bus.prefix}.notify.{model}.{request_id}.*"
        async with asyncio.timeout(timeout_s):
            while True:
                found = await last_notice(self.bus, subject)
                if found is not None:
                    outcome: dict[str, object] = json.loads(found.body)
                    return outcome
                await asyncio.sleep(0.01)

    async def shrunk(self, messages: int, timeout_s: float = 10) -> None:
        """Return when the log has no more than so many messages."""
        async with asyncio.timeout(timeout_s):
            while True:
                if (await log_state(self.bus)).messages <= messages:
                    return
                await asyncio.sleep(0.02)


async def in_log(bus: Bus) -> dict[str, int]:
    """Return the sequence of the last request of every model."""
    return (await last_requests(bus, await log_state(bus), ())).requests


async def until(condition: Callable[[], bool], timeout_s: float = 10) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110  a fake manager has no event to wait for
            await asyncio.sleep(0.01)
