"""The manager of one model: takes it over, applies requests, publishes versions and outcomes, answers reads, leaves."""

from __future__ import annotations

import asyncio
import resource
import time
import uuid
from collections.abc import Coroutine, Sequence
from functools import partial
from importlib import import_module
from typing import Any

import duckdb
import structlog

from teatree.contracts.environment import process_environ
from teatree.contracts.errors import Code, FencedError, OperatorError, RetryError, TeatreeError
from teatree.contracts.failpoints import failpoints
from teatree.contracts.manifest import Manifest, Stub
from teatree.contracts.retry import Backoff
from teatree.contracts.settings import Settings
from teatree.engine.announce import Announcer
from teatree.engine.duckdb_errors import DamagedFileError, DamagedVersionError
from teatree.engine.model_context import ModelContext, WriterHooks
from teatree.engine.prepared_version import Author, PreparedVersion
from teatree.engine.writer import Writer
from teatree.functions.registry import Registry
from teatree.functions.sources import Sources
from teatree.messaging.bus import Bus
from teatree.messaging.log import LogReader, WakeHints
from teatree.messaging.notices import NoticeWriter
from teatree.messaging.service import serve
from teatree.storage.breaker import Breaker
from teatree.storage.catalog import Catalog
from teatree.storage.chain import Chain
from teatree.storage.guarded import GuardedStore
from teatree.storage.model_folder import model_folder
from teatree.storage.objects import ObjectStore
from teatree.storage.postgres import Postgres
from teatree.storage.probe import ensure_probed
from teatree.storage.published_mark import published_through
from teatree.storage.segments import Entry, Role, read_segment
from teatree_manager.background import Background
from teatree_manager.catalog_status import CatalogStatus
from teatree_manager.collector import collect_when_idle
from teatree_manager.crash_tracker import CrashTracker
from teatree_manager.first_file import release_later
from teatree_manager.follower import retrying
from teatree_manager.followers import Followers
from teatree_manager.idle_mark import IdleMark
from teatree_manager.log_check import LogCheck
from teatree_manager.memory import resident_bytes
from teatree_manager.outcome_publisher import OutcomePublisher
from teatree_manager.ownership import Ownership
from teatree_manager.pipeline import Pipeline
from teatree_manager.progress import RequestProgress
from teatree_manager.read_pool import ReadPool
from teatree_manager.reads import DirectReads
from teatree_manager.started_notifier import StartedNotifier
from teatree_manager.store_check import check_store
from teatree_manager.store_waits import StoreWaits
from teatree_manager.stuck import end_hung, end_over

SERVICE_VERSION = "0.1.0"
DRAIN_MS_MAX = 20_000
"""Milliseconds that a leaving manager gives its followers; the next manager continues their work."""
IDLE_LOOK_MS = 250
REPLY_HEADERS_BYTES = 65_536
"""What a reply's headers may take of NATS' `max_payload`."""


class Manager:
    """Owns one model from taking it over until the process ends."""

    def __init__(self, model: str, settings: Settings, store: ObjectStore, functions: Registry) -> None:
        """`store` is the store that the settings name."""
        self._functions = functions
        self._model = model
        self._settings = settings
        self._failpoint = failpoints(settings.failpoints)
        guarded = GuardedStore(store, Breaker("The object store", settings.breaker))
        self._chain = Chain(guarded, settings.nats.prefix, model)
        self._folder = model_folder(settings.data, model)
        breaker = Breaker("PostgreSQL", settings.breaker)
        self._postgres = Postgres(settings.postgres, breaker=breaker) if settings.postgres.url else None
        self._catalog = Catalog(self._postgres) if self._postgres else None
        self._status = CatalogStatus(self._catalog, self._chain.goal_model_id, model)
        self._ownership = Ownership(
            self._folder,
            uuid.UUID(self._chain.goal_model_id),
            model,
            settings.host,
            self._postgres,
            settings.manager,
        )
        self._log = structlog.get_logger().bind(model=model)
        self._stop = asyncio.Event()
        self._pipeline: Pipeline | None = None
        self._waiting = StoreWaits(guarded, settings.breaker.slow_ms, self._status, self._stop, self._log)
        self._has_finished = False
        """Whether no outcome is left for a successor on this host to publish."""

    def stop(self) -> None:
        """Ask the manager to drain and leave."""
        self._stop.set()
        if self._pipeline is not None:
            self._pipeline.stop()

    async def run(self) -> None:
        """Manage the model until `stop` is called, until it is idle, or until an operator must act."""
        await self._acquire()
        try:
            # The lease is kept from now on: a restore may outlast it.
            async with Background([self._ownership.keep(), self._waiting.report_slow()]) as tasks:
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
        backoff = Backoff()
        while True:
            try:
                return await asyncio.to_thread(self._ownership.acquire)
            except RetryError as e:
                if e.code is Code.BUSY or self._stop.is_set():
                    raise
                self._log.warning("the model cannot be acquired", error=str(e))
                await self._status.record_waits(str(e))
                await backoff.pause(e)

    async def _connect_and_manage(self) -> None:
        bus = await self._connect()
        try:
            await self._manage(bus)
        finally:
            await bus.close()

    async def _connect(self) -> Bus:
        try:
            return await Bus.connect(
                self._settings.nats, name=f"manager-{self._model}", wait_ms=self._settings.manager.take_over_wait_ms
            )
        except RetryError as e:
            await self._status.record_waits(f"NATS is away: {e}")
            raise

    async def _manage(self, bus: Bus) -> None:
        newest, recorded_version = await asyncio.gather(self._newest(), self._status.version())
        check_store(self._chain, self._folder, newest, recorded_version)
        await self._waiting.answer(partial(ensure_probed, self._chain.store))  # not before: it would make a lost folder
        log_check = await LogCheck.begin(bus, self._model, newest)
        crash_tracker = CrashTracker(self._folder.attempt, self._settings.limits.kill_tries_max)
        context = ModelContext(
            self._chain,
            self._folder,
            self._settings.limits,
            Sources(self._settings.load_roots, self._settings.store, self._settings.data),
            self._functions,
            self._failpoint,
            WriterHooks(
                report=RequestProgress(bus, asyncio.get_running_loop()).report,
                on_stuck=partial(end_over, crash_tracker=crash_tracker, log=self._log),
            ),
        )
        holder = self._ownership.holder
        writer = Writer(context, Author(log_check.stamp, {"host": holder.host, "pid": holder.pid}))
        hints = await WakeHints.open(bus, self._model)
        announcer = Announcer(
            self._chain, bus.subjects, self._settings.limits, self._functions, lambda: bus.max_payload
        )
        outcome_publisher = OutcomePublisher(
            announcer, NoticeWriter(bus), await self._published(newest), self._failpoint
        )
        pipeline = self._pipeline = Pipeline(
            writer,
            LogReader(bus, self._model),
            log_check,
            hints,
            crash_tracker,
            self._settings.manager.poll_ms,
            lambda: outcome_publisher.announced_version,
            StartedNotifier(bus, self._catalog, uuid.UUID(self._chain.goal_model_id)).notify,
        )
        if self._stop.is_set():
            pipeline.stop()
        try:
            left = await self._take_over(pipeline, writer, newest)
            await self._serve(bus, pipeline, writer, outcome_publisher, left)
        except DamagedFileError as e:
            await pipeline.in_file_thread(writer.put_file_aside)
            raise RetryError(
                e.code,
                f"{e.message} It was put aside.",
                where=str(self._folder.quarantine),
                hint="The next manager restores the newest version and applies what follows it.",
            ) from e
        except DamagedVersionError as e:
            await asyncio.to_thread(self._folder.distrusted.touch)
            raise RetryError(
                e.code,
                f"{e.message} The local versions are not used any more.",
                where=e.where,
                hint="The next manager makes them again out of the store.",
            ) from e
        finally:
            self._ownership.begin_leaving()
            try:
                await asyncio.to_thread(pipeline.close)
            except TimeoutError:
                end_hung(self._log)
            await hints.close()

    async def _published(self, newest: Manifest | None) -> int:
        """Return the version up to which all outcomes are published, as far as the store holds that."""
        if newest is None:
            return 0
        return await self._waiting.answer(partial(published_through, self._chain.store, self._chain.folder, newest))

    async def _newest(self) -> Manifest | None:
        return await self._waiting.answer(self._chain.newest)

    async def _take_over(self, pipeline: Pipeline, writer: Writer, newest: Manifest | None) -> PreparedVersion | None:
        begin = time.monotonic()
        backoff = Backoff()
        while True:
            try:
                left = await pipeline.in_file_thread(writer.take_over, newest)
                break
            except RetryError as e:
                self._log.warning("taking over waits", error=str(e))
                await self._status.record_waits(str(e))
                if self._stop.is_set():
                    raise
                await backoff.pause(e)
                newest = await self._newest()
        self._log.info(
            "took the model over",
            epoch=writer.manifest.epoch,
            version=writer.manifest.version,
            offset=writer.manifest.offset,
            state=writer.state.value,
            restored=writer.restored,
            unshipped=left is not None,
            took_ms=round((time.monotonic() - begin) * 1000),
        )
        return left

    async def _serve(
        self,
        bus: Bus,
        pipeline: Pipeline,
        writer: Writer,
        outcome_publisher: OutcomePublisher,
        left: PreparedVersion | None,
    ) -> None:
        followers = Followers(
            self._chain,
            self._folder,
            self._catalog,
            writer.limits,
            self._settings.manager,
            self._settings.retention,
            self._settings.scrub,
            self._failpoint,
            writer,
            outcome_publisher.archive_answered,
        )

        pipeline.make_room = followers.local.make_room
        if followers.condition is not None:
            self._waiting.is_serving = True
            followers.condition.waits = lambda: (
                pipeline.waiting_for or outcome_publisher.waiting_for or followers.waiting_for or self._waiting.slow()
            )

        async def shipped(prepared: PreparedVersion) -> None:
            followers.follow(prepared.manifest, prepared.entries, prepared.archive)
            await outcome_publisher.put(prepared.manifest, prepared.entries)

        pool = ReadPool(self._settings.reads, process_environ(), self._folder.read_temp, followers.reads.newest_file)
        followers.local.moved.append(pool.release)
        direct = DirectReads(
            self._chain,
            lambda: writer.limits,
            Sources((), self._settings.store),
            pool,
            followers.local,
            lambda: self._health(pipeline, writer, outcome_publisher, followers, pool),
            bus.max_payload - min(REPLY_HEADERS_BYTES, bus.max_payload // 2),
        )
        bus.on_reconnect(outcome_publisher.announce_again)
        service = await serve(
            bus,
            self._model,
            direct.answer,
            self._settings.reads,
            version=SERVICE_VERSION,
            description=f"Direct reads of {self._model}",
        )
        fence = writer.manifest
        if writer.restored:
            followers.local.hold()
        followers.follow(fence, ())
        unannounced = range(outcome_publisher.announced_version + 1, fence.version)
        outcome_publisher.expect(unannounced)
        mark = IdleMark(
            self._chain,
            outcome_publisher.announced_version,
            lambda: writer.manifest.version,
            lambda: outcome_publisher.announced_version,
        )
        background: list[Coroutine[Any, Any, None]] = [
            outcome_publisher.run(),
            *(follower.run() for follower in followers.followers),
            followers.local.reported(),
            release_later(followers.local, lambda: pipeline.is_idle and outcome_publisher.is_done),
            collect_when_idle(lambda: pipeline.idle_ms if outcome_publisher.is_done else 0.0),
            self._leave_when_idle(pipeline, direct, followers, outcome_publisher),
            self._announce_again(outcome_publisher, unannounced, followers),
            mark.run(),
        ]
        async with pool, Background(background) as tasks:
            if left is not None:
                pipeline.begin_shipping(left, shipped)
            try:
                await tasks.until(pipeline.run(shipped))
            finally:
                self._ownership.begin_leaving()
            await service.close()
            await self._drain(tasks, outcome_publisher, followers)
            self._has_finished = outcome_publisher.is_done
        await followers.close()

    def _health(
        self,
        pipeline: Pipeline,
        writer: Writer,
        outcome_publisher: OutcomePublisher,
        followers: Followers,
        pool: ReadPool,
    ) -> dict[str, Any]:
        return {
            "model": self._model,
            "state": writer.state.value,
            "epoch": writer.manifest.epoch,
            "version": writer.manifest.version,
            "offset": writer.manifest.offset,
            "served_version": followers.local.served,
            "announced_version": outcome_publisher.announced_version,
            "waiting_for": pipeline.waiting_for,
            "followers": {follower.name: follower.error for follower in followers.followers},
            "read_workers": pool.pids,
            "reads_waiting": pool.waiting,
            "memory_bytes": resident_bytes(),
            "memory_bytes_peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "pid": self._ownership.holder.pid,
        }

    async def _announce_again(self, outcome_publisher: OutcomePublisher, versions: range, followers: Followers) -> None:
        """Publish what the last manager may not have published; repeated notices are identical."""
        for version in versions:
            read = partial(self._read_again, version)
            manifest, entries = await retrying(read, partial(self._report_waiting, version))
            if isinstance(manifest, Stub):  # a paused manager has marked it as published, and a clean-up removed it
                outcome_publisher.pass_over(version)
                continue
            await outcome_publisher.put(manifest, entries)
            for entry in entries:
                if entry.role is Role.FIRST and outcome_publisher.is_barrier(entry.outcome) and entry.outcome.result:
                    followers.wait_for_archive(manifest, entry.outcome.result.get("tables", ()))

    def _read_again(self, version: int) -> tuple[Manifest | Stub, Sequence[Entry]]:
        manifest = self._chain.entry(version)
        if isinstance(manifest, Stub):
            return manifest, ()
        return manifest, read_segment(self._chain.store, self._chain.folder, manifest)

    def _report_waiting(self, version: int, error: TeatreeError) -> None:
        self._log.warning("publishing outcomes again waits for the store", version=version, error=str(error))

    async def _leave_when_idle(
        self, pipeline: Pipeline, direct: DirectReads, followers: Followers, outcome_publisher: OutcomePublisher
    ) -> None:
        """Leave after a time without requests and reads; a manager with work left would only be started again."""
        limit_ms = self._settings.manager.idle_exit_ms
        while True:
            await asyncio.sleep(IDLE_LOOK_MS / 1000)
            now_ms = time.monotonic() * 1000
            idle_ms = now_ms - max(pipeline.last_request_ms, direct.last_ms)
            is_done = outcome_publisher.is_done and not pipeline.is_applying
            if limit_ms and idle_ms > limit_ms and is_done and not followers.are_catching_up:
                self._log.info("leaving: idle", idle_ms=round(idle_ms))
                self.stop()
                return

    async def _drain(self, tasks: Background, outcome_publisher: OutcomePublisher, followers: Followers) -> None:
        """Let the followers finish their work, for a bounded time."""

        async def drained() -> None:
            await asyncio.gather(outcome_publisher.drained(), followers.drained())

        try:
            async with asyncio.timeout(DRAIN_MS_MAX / 1000):
                await tasks.until(drained())
        except TimeoutError:
            self._log.warning("left before all followers had finished: the next manager continues their work")


def preload() -> None:
    """Load what the first request needs, so that it does not wait for that."""
    for module in ("arrow", "arrow_stream", "fit", "rows", "json_values"):
        import_module(f"teatree.datasets.{module}")
    with duckdb.connect(":memory:") as con:
        con.execute("SELECT 1").fetchall()
