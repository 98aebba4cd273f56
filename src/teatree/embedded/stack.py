"""The whole stack on one machine, in one folder: servers, streams, catalog and the dispatcher; then `teatree.env`.

One thread owns it: `start`, `run` and `stop` are called from there. A second one, `_watch`, only restarts parts that
exited; it ends before `stop` stops them. The dispatcher starts the managers, which can outlive it: the stack finds them
by the files that they wrote, and ends them when it stops.

    <data>/teatree.env            how to connect to all of it; it exists while the stack is ready
    <data>/_servers/<name>/       one folder a server: its data, log, ports and secrets
    <data>/_store/                the object store, if it is a local folder
    <data>/<model>/               a model's own; no model's name begins with `_`
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Self

from attrs import evolve, field, frozen

from teatree.contracts.clock import SYSTEM_CLOCK, Clock
from teatree.contracts.data_folder import SERVERS_FOLDER, check_data_folder
from teatree.contracts.environment import ENV_FILE, connection_environ, read_settings
from teatree.contracts.errors import Code, OperatorError, TeatreeError
from teatree.contracts.settings import NatsSettings, PostgresSettings, Settings, StoreSettings
from teatree.embedded.dispatcher import DispatcherProcess
from teatree.embedded.env_file import remove_block, write_block
from teatree.embedded.folder_lock import FolderLock
from teatree.embedded.managers import end_managers
from teatree.embedded.nats import NatsServer
from teatree.embedded.postgres import PostgresServer
from teatree.embedded.restarts import Restarts
from teatree.embedded.seaweed import SeaweedServer
from teatree.embedded.secret_file import own_folder, private_folder
from teatree.embedded.server import Server
from teatree.messaging.bus import Bus
from teatree.messaging.streams import ensure_streams
from teatree.storage.objects.stores import open_store

STORE_FOLDER = "_store"
_PROBE_KEY = "teatree-up"
_MIGRATE_MODULE = "teatree.storage.catalog.migrations.migrate"
_SIGNAL_LOOK_S = 0.2
"""How often `run` checks for a signal."""
_WATCH_S = 0.1
_OWN_CONNECTIONS = frozenset(name for name in connection_environ(Settings()) if name != "TEATREE_PREFIX")


class StepState(StrEnum):
    """What happened to a part of the stack."""

    STARTING = "starting"
    READY = "ready"
    DIED = "died"
    FAILED = "failed"
    """It could not be started again; it is tried later."""
    STOPPED = "stopped"


@frozen
class Step:
    """A change in the stack, for progress output."""

    part: str
    """A server or `dispatcher`; `leftovers`, `store`, `streams`, `catalog`, `managers`; `stack` for the whole."""
    state: StepState
    detail: str = ""


@frozen
class StackOptions:
    """Which services to start, and which outside ones to use."""

    data: Path
    s3: bool = False
    """Start a real S3 server for the object store, instead of a local folder."""
    nats: NatsSettings | None = None
    """An outside NATS."""
    postgres: PostgresSettings | None = None
    """An outside PostgreSQL."""
    store: StoreSettings | None = None
    """An outside object store."""
    prefix: str = "teatree"
    environ: Mapping[str, str] = field(factory=dict, repr=False)
    """The environment for the dispatcher and its managers: limits, the path to users' packages."""
    managers_stop_ms_max: int = 15_000
    """Milliseconds in which managers have to drain when the stack stops."""


class Stack:
    """A running stack: `with Stack(options) as stack: use(stack.settings)`, or `Stack(options).run()` until a signal.

    An object runs once. `on_step` is called from several threads.
    """

    def __init__(
        self, options: StackOptions, on_step: Callable[[Step], None] | None = None, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._options = evolve(options, data=options.data.absolute())
        self._data = self._options.data
        self._report = on_step or (lambda _: None)
        self._clock = clock
        self._lock = FolderLock(self._data / "up.lock")
        self._parts: list[Server] = []
        """The running parts, in the order of starting."""
        self._settings: Settings | None = None
        self._stopping = threading.Event()
        self._watcher: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self.stop()

    @property
    def settings(self) -> Settings:
        """Return how to connect to the stack, which has been started."""
        if self._settings is None:
            msg = "The stack has not been started."
            raise RuntimeError(msg)
        return self._settings

    def server(self, name: str) -> Server:
        """Return a part by name (`nats`, `postgres`, `seaweed`, `dispatcher`), to inspect its process."""
        return next(part for part in self._parts if part.name == name)

    def run(self, on_ready: Callable[[Settings], None] | None = None) -> signal.Signals:
        """Start the stack, keep it until SIGINT, SIGTERM or SIGHUP, stop it; return the first of those signals.

        Call it from the main thread.
        """
        with _signals_set(self._stopping) as seen, self:
            if on_ready is not None and not self._stopping.is_set():
                on_ready(self.settings)
            while not self._stopping.is_set():  # a wait holds the lock that the signal's handler needs
                self._clock.sleep(_SIGNAL_LOOK_S)
        return seen[0] if seen else signal.SIGTERM

    def start(self) -> None:
        """Start all parts and return when they are ready; first ends processes that an earlier run left.

        Raises `busy` if the folder is in use. If a part fails, the others are stopped again.
        """
        check_data_folder(self._data)
        try:
            own_folder(self._data)
        except OSError as e:
            raise OperatorError(
                Code.WRONG_CONFIGURATION,
                f"The data folder cannot be created: {e.strerror}.",
                where=str(self._data),
                hint="Choose another folder.",
            ) from None
        self._lock.take()
        try:
            self._end_leftovers()
            self._start_parts()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop all parts, the last started first, and every manager; return when all have ended."""
        self._stopping.set()
        if self._watcher is not None:
            self._watcher.join()
            self._watcher = None
        remove_block(self._env_path)
        self._stop_part("dispatcher")
        count = end_managers(self._data, self._options.managers_stop_ms_max)
        if count:
            self._report(Step("managers", StepState.STOPPED, str(count)))
        while self._parts:
            self._stop_part(self._parts[-1].name)
        self._lock.release()

    @property
    def _env_path(self) -> Path:
        return self._data / ENV_FILE

    def _folder(self, name: str) -> Path:
        return self._data / SERVERS_FOLDER / name

    def _end_leftovers(self) -> None:
        """End processes that a killed run left, whichever parts it had: the dispatcher first, as it starts managers."""
        remove_block(self._env_path)
        count = self._dispatcher({}).stop_leftovers()
        count += end_managers(self._data, self._options.managers_stop_ms_max)
        for kind in (SeaweedServer, PostgresServer, NatsServer):
            if self._folder(kind.name).is_dir():
                count += kind(self._folder(kind.name)).stop_leftovers()
        if count:
            self._report(Step("leftovers", StepState.STOPPED, str(count)))

    def _start_parts(self) -> None:
        outer = {name: value for name, value in self._options.environ.items() if name not in _OWN_CONNECTIONS}
        self._settings = self._start_servers(read_settings(outer, self._data))
        for check in (self._check_store, self._check_streams, self._migrate):
            if self._stopping.is_set():  # a signal came meanwhile
                return
            check()
        self._parts.append(self._dispatcher({**outer, **connection_environ(self._settings)}))
        self._start_part(self._parts[-1])
        self._watcher = threading.Thread(target=self._watch, name="teatree-stack")
        self._watcher.start()
        write_block(self._env_path, connection_environ(self._settings))
        self._report(Step("stack", StepState.READY, str(self._data)))

    def _start_servers(self, given: Settings) -> Settings:
        """Start all servers that are not outside ones, concurrently; return the settings to connect to each."""
        options = self._options
        nats = None if options.nats else NatsServer(self._folder("nats"))
        postgres = None if options.postgres else PostgresServer(self._folder("postgres"))
        seaweed = SeaweedServer(self._folder("seaweed")) if options.s3 and not options.store else None
        self._parts += [server for server in (nats, postgres, seaweed) if server is not None]
        with ThreadPoolExecutor() as pool:
            pool.submit(import_module, _MIGRATE_MODULE)  # SQLAlchemy takes as long as PostgreSQL does
            for started in [pool.submit(self._start_part, server) for server in self._parts]:
                started.result()
        return evolve(
            given,
            nats=nats.settings(options.prefix) if nats else options.nats or given.nats,
            postgres=postgres.settings() if postgres else options.postgres or given.postgres,
            store=seaweed.settings() if seaweed else options.store or self._local_store(),
            data=self._data,
        )

    def _start_part(self, part: Server) -> None:
        self._report(Step(part.name, StepState.STARTING))
        part.start()
        self._report(Step(part.name, StepState.READY, part.moved))

    def _dispatcher(self, environ: Mapping[str, str]) -> DispatcherProcess:
        return DispatcherProcess(self._folder("dispatcher"), self._data, environ)

    def _local_store(self) -> StoreSettings:
        return StoreSettings(url=private_folder(self._data / STORE_FOLDER).as_uri())

    def _check_store(self) -> None:
        """Send one request to the store, so that a wrong key or address fails here and not in a manager."""
        open_store(self.settings.store).head(_PROBE_KEY)
        self._report(Step("store", StepState.READY, self.settings.store.url))

    def _check_streams(self) -> None:
        with ThreadPoolExecutor(1) as thread:  # a caller's own event loop may run in this one
            thread.submit(lambda: asyncio.run(self._ensure_streams())).result()

    async def _ensure_streams(self) -> None:
        limits = self.settings.dispatcher
        bus = await Bus.connect(self.settings.nats, name="teatree-up")
        try:
            await ensure_streams(
                bus,
                log_bytes_max=limits.log_bytes_max,
                notices_age_s=limits.notices_age_ms / 1000,
                notices_max=limits.notices_max,
            )
        finally:
            await bus.close()
        self._report(Step("streams", StepState.READY))

    def _migrate(self) -> None:
        import_module(_MIGRATE_MODULE).migrate(self.settings.postgres)
        self._report(Step("catalog", StepState.READY))

    def _watch(self) -> None:
        """Restart parts that exited, until the stack stops."""
        restarts = {part.name: Restarts(self._clock.monotonic()) for part in self._parts}
        while not self._stopping.wait(_WATCH_S):
            for part in self._parts:
                if not part.is_running():
                    restarts[part.name] = self._look_after(part, restarts[part.name])

    def _look_after(self, part: Server, restarts: Restarts) -> Restarts:
        now_s = self._clock.monotonic()
        if restarts.due_s is None:
            self._report(Step(part.name, StepState.DIED, f"see {part.log_path}"))
            return restarts.after_exit(now_s)
        if now_s < restarts.due_s:
            return restarts
        try:
            part.start()
        except (TeatreeError, OSError) as e:
            self._report(Step(part.name, StepState.FAILED, str(e)))
            return restarts.after_exit(self._clock.monotonic())
        self._report(Step(part.name, StepState.READY))
        return restarts.after_start(self._clock.monotonic())

    def _stop_part(self, name: str) -> None:
        for part in [part for part in self._parts if part.name == name]:
            part.stop()
            self._parts.remove(part)
            self._report(Step(name, StepState.STOPPED))


@contextmanager
def _signals_set(event: threading.Event) -> Iterator[list[signal.Signals]]:
    """Make the signals that end a program set the event instead; yield the list of those received."""
    seen: list[signal.Signals] = []

    def on_signal(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - as `signal` calls it
        seen.append(signal.Signals(number))
        if len(seen) == 1:  # a second signal within this call would wait for the event's own lock, for ever
            event.set()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield seen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
