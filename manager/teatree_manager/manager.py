"""The manager of one model: takes it over, applies requests, publishes versions and outcomes, answers reads, leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from functools import partial
from importlib import import_module
from typing import Any

import duckdb

from teatree.contracts.clock import SYSTEM_CLOCK, Clock
from teatree.contracts.environment import process_environ
from teatree.contracts.errors import Code, FencedError, OperatorError, RetryError, TeatreeError
from teatree.contracts.failpoints import failing_probe
from teatree.contracts.formats.manifest import Manifest, ModelOptions, StreamStamp
from teatree.contracts.probe import Listener
from teatree.contracts.retry import may_pass
from teatree.contracts.settings import Settings
from teatree.engine.base import INSTALLED_ENGINES
from teatree.engine.errors import DamagedFileError, DamagedVersionError
from teatree.engine.model_context import WriterHooks
from teatree.engine.publish.announce import Announcer
from teatree.engine.publish.prepared import Author, PreparedVersion
from teatree.engine.writer import Writer
from teatree.functions.registry import Registry
from teatree.functions.sources import Sources
from teatree.messaging.bus import Bus
from teatree.messaging.log import LogReader, WakeHints
from teatree.messaging.notices import NoticeWriter
from teatree.messaging.service import QueryHandler, QueryService, serve
from teatree.storage.breaker import Breaker
from teatree.storage.catalog.catalog import Catalog
from teatree.storage.catalog.postgres import Postgres
from teatree.storage.model_folder import model_folder
from teatree.storage.objects.base import ObjectStore
from teatree.storage.objects.guarded import GuardedStore
from teatree.storage.objects.probe import ensure_probed
from teatree.storage.versions.chain import Chain
from teatree.storage.versions.published_mark import published_through
from teatree_manager.activity import Activity
from teatree_manager.background import Background
from teatree_manager.catalog_status import CatalogStatus
from teatree_manager.collector import collect_when_idle
from teatree_manager.context import ManagerContext
from teatree_manager.followers.first_file import release_later
from teatree_manager.health import Health
from teatree_manager.idle_mark import IdleMark
from teatree_manager.live.live_queries import LiveQueries
from teatree_manager.live.live_runner import LiveRunner
from teatree_manager.manager_tasks import ManagerTasks
from teatree_manager.outcome_publisher import OutcomePublisher
from teatree_manager.ownership import Ownership
from teatree_manager.pipeline.applier import Applier
from teatree_manager.pipeline.crash_tracker import CrashTracker
from teatree_manager.pipeline.file_thread import FileThread
from teatree_manager.pipeline.kill_timer import KillTimer
from teatree_manager.pipeline.log_check import LogCheck
from teatree_manager.pipeline.pipeline import Pipeline
from teatree_manager.pipeline.progress import RequestProgress
from teatree_manager.pipeline.request_source import RequestSource
from teatree_manager.pipeline.retrying_file import RetryingFile
from teatree_manager.pipeline.started_notifier import StartedNotifier
from teatree_manager.read_workers.pool import ReadPool
from teatree_manager.reads import DirectReads
from teatree_manager.start.start_retry import StartRetry
from teatree_manager.start.store_check import check_store
from teatree_manager.start.store_waits import StoreWaits
from teatree_manager.start.unannounced import UnannouncedVersions
from teatree_manager.stuck import end_hung, end_over
from teatree_manager.watch_reads import WatchReads

SERVICE_VERSION = "0.1.0"
DRAIN_MS_MAX = 20_000
"""Milliseconds that a leaving manager gives its followers; the next manager continues their work."""
REPLY_HEADERS_BYTES = 65_536
"""What a reply's headers may take of NATS' `max_payload`."""


class Manager:
    """Owns one model from taking it over until leaving it."""

    def __init__(
        self,
        model: str,
        settings: Settings,
        store: ObjectStore,
        functions: Registry,
        listeners: Sequence[Listener] = (),
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """`store` is where the settings' store lies; `functions` are those that requests can call.

        `listeners` receive the points of its probe.
        """
        self._functions = functions
        guarded = GuardedStore(store, Breaker("The object store", settings.breaker, clock), clock)
        breaker = Breaker("PostgreSQL", settings.breaker, clock)
        self._postgres = Postgres(settings.postgres, breaker=breaker, clock=clock) if settings.postgres.url else None
        self._context = ManagerContext(
            settings=settings,
            chain=Chain(guarded, settings.nats.prefix, model),
            folder=model_folder(settings.data, model),
            catalog=Catalog(self._postgres) if self._postgres else None,
            probe=failing_probe(settings.failpoints, listeners).bind(model=model),
            clock=clock,
        )
        self._status = CatalogStatus(self._context)
        self._ownership = Ownership(self._context, self._postgres)
        self._log = self._context.log
        self._stop = asyncio.Event()
        self._source: RequestSource | None = None
        self._retry = StartRetry(self._status, self._log, self._stop, clock)
        self._store_waits = StoreWaits(self._context, guarded, self._status, self._retry)
        self._has_finished = False
        """Whether no outcome is left for a successor on this host to publish."""

    def stop(self) -> None:
        """Ask the manager to drain and leave."""
        self._stop.set()
        if self._source is not None:
            self._source.stop()

    async def run(self) -> None:
        """Manage the model until `stop` is called, until it is idle, or until an operator must act."""
        with self._context.probe.step("manager.acquire"):
            await self._acquire()
        try:
            # The lease is kept from now on: a restore may outlast it.
            async with Background([self._ownership.keep(), self._store_waits.report_slow()]) as tasks:
                await tasks.until(self._connect_and_manage())
        except FencedError:
            self._has_finished = True  # the other manager publishes what this one did not
            raise
        except OperatorError as e:
            await self._status.record_error(e)
            raise
        finally:
            await asyncio.to_thread(self._ownership.release, has_finished=self._has_finished)
            if self._postgres is not None:
                self._postgres.close()

    async def _acquire(self) -> None:
        """Get lock and lease, waiting while the data folder's disk refuses; raises `busy`."""
        acquire = partial(asyncio.to_thread, self._ownership.acquire)
        await self._retry.call("the model cannot be acquired", acquire, again=_is_not_busy)

    async def _connect_and_manage(self) -> None:
        settings = self._context.settings
        try:
            with self._context.probe.step("manager.connect"):
                bus = await Bus.connect(
                    settings.nats,
                    name=f"manager-{self._context.model}",
                    wait_ms=settings.manager.take_over_wait_ms,
                    probe=self._context.probe,
                    clock=self._context.clock,
                )
        except RetryError as e:
            await self._status.record_waits(f"NATS is unavailable: {e}")
            raise
        try:
            await self._manage(bus)
        finally:
            await bus.close()

    async def _manage(self, bus: Bus) -> None:
        context = self._context
        newest, recorded_version = await asyncio.gather(self._newest(), self._status.version())
        check_store(context.chain, context.folder, newest, recorded_version)
        await self._store_waits.answer(
            partial(ensure_probed, context.chain.store)
        )  # before, it would make a lost folder
        log_check = await LogCheck.begin(bus, context.model, newest)
        timer = KillTimer(context.folder, context.settings.manager.lease_ms)
        crash_tracker = CrashTracker(context.folder.attempt, context.settings.limits.kill_tries_max, timer.hung())
        writer = self._writer(bus, log_check.stamp, crash_tracker, timer)
        announcer = Announcer(
            context.chain, bus.subjects, context.settings.limits, self._functions, bus.payload_bytes_max
        )
        outcomes = OutcomePublisher(context, announcer, NoticeWriter(bus), await self._published(newest))
        thread = FileThread(context.folder.root)
        hints = await WakeHints.open(bus, context.model)
        source = self._source = RequestSource(context, LogReader(bus, context.model), log_check, hints)
        if self._stop.is_set():
            source.stop()
        try:
            async with self._damage_put_aside(thread, writer):
                with context.probe.step("manager.take_over"):
                    left = await self._take_over(thread, writer, newest)
                followers = ManagerTasks(context, writer, outcomes)
                file = RetryingFile(context, writer, thread, crash_tracker, source, followers.local)
                applier = Applier(context, file, StartedNotifier(context, bus))
                pipeline = Pipeline(source, applier, file, followers, outcomes)
                try:
                    await self._serve(bus, pipeline, writer, outcomes, followers, left)
                finally:
                    self._ownership.begin_leaving()
                    await asyncio.to_thread(pipeline.close)
        finally:
            self._ownership.begin_leaving()
            try:
                await asyncio.to_thread(thread.close, writer)
            except TimeoutError:
                end_hung(self._log)
            await hints.close()

    @asynccontextmanager
    async def _damage_put_aside(self, thread: FileThread, writer: Writer) -> AsyncIterator[None]:
        """Put damaged files of this host out of use, so that the next manager makes them anew."""
        folder = self._context.folder
        try:
            yield
        except DamagedFileError as e:
            await thread.run(writer.put_data_aside)
            raise RetryError(
                e.code,
                f"{e.message} It was put aside.",
                where=str(folder.quarantine),
                hint="The next manager restores the newest version and applies what follows it.",
            ) from e
        except DamagedVersionError as e:
            await asyncio.to_thread(folder.distrusted.touch)
            raise RetryError(
                e.code,
                f"{e.message} The local versions are not used any more.",
                where=e.where,
                hint="The next manager makes them again out of the store.",
            ) from e

    def _writer(self, bus: Bus, stamp: StreamStamp, crash_tracker: CrashTracker, timer: KillTimer) -> Writer:
        holder = self._ownership.holder
        hooks = WriterHooks(
            report=RequestProgress(bus, asyncio.get_running_loop()).report,
            on_stuck=partial(end_over, crash_tracker=crash_tracker, log=self._log),
            during=timer.during,
        )
        model = self._context.for_writer(self._functions, hooks)
        return Writer(model, Author(stamp, {"host": holder.host, "pid": holder.pid}))

    async def _published(self, newest: Manifest | None) -> int:
        """Return the version up to which all outcomes are published, as far as the store holds that."""
        if newest is None:
            return 0
        chain = self._context.chain
        return await self._store_waits.answer(partial(published_through, chain.store, chain.folder, newest))

    async def _newest(self) -> Manifest | None:
        return await self._store_waits.answer(self._context.chain.newest)

    async def _take_over(self, thread: FileThread, writer: Writer, newest: Manifest | None) -> PreparedVersion | None:
        begin = self._context.clock.monotonic()
        is_first = True

        async def take_over() -> PreparedVersion | None:
            nonlocal is_first
            base = newest if is_first else await self._newest()  # a try that failed may have created a manifest
            is_first = False
            return await thread.run(writer.take_over, base)

        left = await self._retry.call("taking over waits", take_over)
        self._log.info(
            "took the model over",
            epoch=writer.manifest.epoch,
            version=writer.manifest.version,
            offset=writer.manifest.offset,
            state=writer.state.value,
            restored=writer.restored,
            unshipped=left is not None,
            took_ms=round((self._context.clock.monotonic() - begin) * 1000),
        )
        return left

    async def _serve(
        self,
        bus: Bus,
        pipeline: Pipeline,
        writer: Writer,
        outcomes: OutcomePublisher,
        followers: ManagerTasks,
        left: PreparedVersion | None,
    ) -> None:
        context = self._context
        self._store_waits.begin_serving()
        pool = self._read_pool(followers)
        reply_bytes_max = bus.payload_bytes_max() - min(REPLY_HEADERS_BYTES, bus.payload_bytes_max() // 2)
        runner = LiveRunner(context, writer.limits, followers.local, reply_bytes_max)
        live = LiveQueries(context, runner, followers.local, bus)
        followers.add(live)
        reads = DirectReads(
            writer,
            Sources((), context.settings.store),
            pool,
            followers.local,
            Health(context, writer, outcomes, followers, pool, live),
            reply_bytes_max,
        )
        bus.on_reconnect(outcomes.announce_again)
        service = await self._begin_service(bus, WatchReads(live, writer, followers.local, reads.answer).answer)
        unannounced = self._begin_following(writer, outcomes, followers)
        activity = Activity(context, pipeline, outcomes, followers, reads, live)
        background: list[Coroutine[Any, Any, None]] = [
            outcomes.run(),
            *(task.run() for task in followers.tasks),
            followers.local.reported(),
            release_later(followers.local, activity.is_answered, context.clock),
            collect_when_idle(activity.idle_ms, context.clock),
            self._leave_after(activity.until_idle()),
            self._leave_after(reads.app_watch.until_changed()),
            UnannouncedVersions(context, unannounced, outcomes, followers).run(),
            IdleMark(writer, outcomes).run(),
        ]
        async with pool, runner, Background(background) as tasks:
            try:
                await tasks.until(pipeline.run(left))
            finally:
                self._ownership.begin_leaving()
            await service.close()
            await self._drain(tasks, outcomes, followers)
            self._has_finished = outcomes.is_done
        await followers.close()

    async def _begin_service(self, bus: Bus, handler: QueryHandler) -> QueryService:
        context = self._context
        return await serve(
            bus,
            context.model,
            handler,
            context.settings.reads,
            version=SERVICE_VERSION,
            description=f"Direct reads of {context.model}",
        )

    def _read_pool(self, followers: ManagerTasks) -> ReadPool:
        context = self._context
        pool = ReadPool(
            context.settings.reads,
            process_environ(),
            context.folder.read_temp,
            followers.reads.newest_file,
            context.probe,
            context.clock,
        )
        followers.local.subscribe(pool.release)
        return pool

    def _begin_following(self, writer: Writer, outcomes: OutcomePublisher, followers: ManagerTasks) -> range:
        """Hand the newest version to the followers; return the versions before it that may lack notices."""
        fence = writer.manifest
        if writer.restored:
            followers.local.hold()
        followers.follow(fence, ())
        unannounced = range(outcomes.announced_version + 1, fence.version)
        outcomes.expect(unannounced)
        return unannounced

    async def _leave_after(self, reason: Coroutine[Any, Any, None]) -> None:
        await reason
        self.stop()

    async def _drain(self, tasks: Background, outcomes: OutcomePublisher, followers: ManagerTasks) -> None:
        """Let the followers finish their work, for a bounded time."""

        async def drained() -> None:
            await asyncio.gather(outcomes.drained(), followers.drained())

        try:
            async with asyncio.timeout(DRAIN_MS_MAX / 1000):
                await tasks.until(drained())
        except TimeoutError:
            self._log.warning("left before all followers had finished: the next manager continues their work")


def _is_not_busy(error: TeatreeError) -> bool:
    return may_pass(error) and error.code is not Code.BUSY


def preload() -> None:
    """Load what the first request needs, so that it does not wait for that."""
    for module in ("arrow.types", "arrow_stream", "fit", "rows", "results.json_values"):
        import_module(f"teatree.datasets.{module}")
    INSTALLED_ENGINES.require(ModelOptions().engine)
    with duckdb.connect(":memory:") as con:
        con.execute("SELECT 1").fetchall()
