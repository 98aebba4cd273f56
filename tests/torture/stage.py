"""The real stack, part by part, so that a schedule can kill, stop and start each."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import psutil
import psycopg
from attrs import evolve
from typing_extensions import override

from servers import TestServers
from teatree.contracts.environment import connection_environ
from teatree.contracts.process import read_process
from teatree.contracts.settings import NatsSettings, PostgresSettings, Settings, StoreSettings
from teatree.embedded.dispatcher import DispatcherProcess
from teatree.embedded.managers import end_managers
from teatree.embedded.nats import NatsServer
from teatree.embedded.postgres import DATABASE, USER, PostgresServer
from teatree.embedded.seaweed import SeaweedServer
from teatree.embedded.server import Server
from teatree.messaging.bus import Bus
from teatree.messaging.streams import ensure_streams
from teatree.storage.catalog.migrations.migrate import migrate
from torture.app.files import AppFiles
from torture.app.history import CodeChange
from torture.oracle import Accepted
from torture.preload import MovedClock, Sectors, joined
from torture.proxy import Proxy

LEASE_MS = 1_500
SQL_TRIES_MAX = 20
DISK_BYTES = 1_500_000_000
"""Size of the data folder's own disk, where mounting one is allowed."""
PACE = {
    "TEATREE_MANAGER_LEASE_MS": str(LEASE_MS),
    "TEATREE_MANAGER_POLL_MS": "300",
    "TEATREE_MANAGER_IDLE_EXIT_MS": "4000",
    "TEATREE_MANAGER_ARCHIVE_INTERVAL_MS": "500",
    "TEATREE_DISPATCHER_POLL_MS": "300",
    "TEATREE_DISPATCHER_RESTART_MS_MIN": "50",
    "TEATREE_DISPATCHER_RESTART_MS_MAX": "500",
    "TEATREE_LIMITS_DISK_FREE_BYTES_MIN": "1000000",
    "TEATREE_RETENTION_KEEP_ALL_HOURS": "0.005",
    "TEATREE_RETENTION_GRACE_MS": "10000",
    "TEATREE_RETENTION_ARCHIVE_HOURS": "0.005",
    "TEATREE_RETENTION_INTERVAL_MS": "5000",
    "TEATREE_SCRUB_INTERVAL_MS": "1000",
}
"""Short intervals: leases end, managers leave and return, versions are cleaned up within a short run."""


class MovedPostgres(PostgresServer):
    """PostgreSQL with a clock that can be moved."""

    def __init__(self, folder: Path, clock: MovedClock) -> None:
        super().__init__(folder)
        self._clock = clock

    @override
    def _environment(self) -> Mapping[str, str]:
        return {**super()._environment(), **self._clock.environ}


class Stage:
    """NATS, PostgreSQL, a store, the dispatcher, and through it managers, all below one folder."""

    def __init__(self, folder: Path, *, s3: bool = False) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.plan = folder / "failpoints.json"
        self.sources = folder / "sources"
        self.apps = AppFiles(folder / "apps")
        self.app_changes: list[CodeChange] = []
        self.nats = NatsServer(folder / "nats")
        self.clock = MovedClock(folder / "clock")
        """The clock of all our processes."""
        self.sectors = Sectors(folder / "sectors")
        """The disk that they see."""
        self.postgres_clock = MovedClock(folder / "postgres-clock")
        self.postgres = MovedPostgres(folder / "postgres", self.postgres_clock)
        self.seaweed = SeaweedServer(folder / "seaweed") if s3 else None
        self.settings = Settings()
        self.proxies: dict[str, Proxy] = {}
        """By the server's name: our processes reach it through its proxy."""
        self.logs_before: list[list[Accepted]] = []
        """The requests of the log, each time before a fault cut off its end."""
        self.is_damaged = False
        """Whether an object in the store is damaged at this moment."""
        self.has_own_disk = False
        """Whether the data folder is a separate small file system."""
        self._dispatcher: DispatcherProcess | None = None
        self._others: list[subprocess.Popen[bytes]] = []

    @property
    def dispatcher(self) -> DispatcherProcess:
        """The dispatcher that runs unless a fault stops it."""
        assert self._dispatcher is not None
        return self._dispatcher

    def start(self) -> None:
        """Start everything."""
        self.data.mkdir(parents=True)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(self.data)]
        self.has_own_disk = (
            os.geteuid() == 0 and subprocess.run(mount, capture_output=True, check=False).returncode == 0
        )
        self.plan.write_text("{}")
        self.sources.mkdir()
        self.apps.install()
        for part in self.servers():
            part.start()
        store = StoreSettings(url=(self.folder / "store").absolute().as_uri())
        if self.seaweed is not None:
            store = self.seaweed.settings()
        self.settings = Settings(
            nats=self._proxied_nats(),
            postgres=self._proxied_postgres(),
            store=self._proxied(store),
            data=self.data,
            load_roots=(str(self.sources),),
        )
        migrate(self.settings.postgres)
        asyncio.run(self._ensure_streams())
        self._dispatcher = DispatcherProcess(self.folder / "dispatcher", self.data, self.environ())
        self._dispatcher.start()

    def _proxied_nats(self) -> NatsSettings:
        settings = self.nats.settings()
        proxy = self.proxies["nats"] = Proxy(settings.url.removeprefix("nats://"))
        return evolve(settings, url=f"nats://{proxy.address}")

    def _proxied_postgres(self) -> PostgresSettings:
        settings = self.postgres.settings()
        assert settings.url is not None
        place = urlsplit(settings.url)
        folder = self.folder / "pg"
        folder.mkdir()
        name = ".s.PGSQL.5432"
        socket = Path(parse_qs(place.query)["host"][0]) / name
        self.proxies["postgres"] = Proxy(str(socket), str(folder / name))
        return evolve(settings, url=f"{place.scheme}://{place.netloc}{place.path}?host={quote(str(folder), safe='')}")

    def _proxied(self, store: StoreSettings) -> StoreSettings:
        endpoint = parse_qs(urlsplit(store.url).query).get("endpoint")
        if endpoint is None:
            return store
        proxy = self.proxies["seaweed"] = Proxy(endpoint[0].removeprefix("http://"))
        return evolve(store, url=store.url.replace(endpoint[0], f"http://{proxy.address}"))

    def drop_database(self) -> None:
        """Drop the catalog's database, also while it is in use, and create it empty."""
        create = f"CREATE DATABASE {DATABASE} OWNER {USER}"
        for statement in (f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)", create):
            self._run_sql(statement)

    def _run_sql(self, statement: str) -> None:
        """Run a statement; managers that reconnect at once can block it for a moment."""
        for left in reversed(range(SQL_TRIES_MAX)):
            try:
                TestServers.run_sql(self.postgres.superuser_settings(), statement)
            except psycopg.Error:
                if not left:
                    raise
                time.sleep(0.2)
            else:
                return

    def kill(self, part: Server | DispatcherProcess) -> int | None:
        """SIGKILL a part; return its pid once all its threads have ended: the first can be a zombie before the last."""
        pid = part.pid
        send(pid, signal.SIGKILL)
        while part.pid is not None:
            time.sleep(0.01)
        return pid

    def servers(self) -> list[Server]:
        """Return the servers that a run needs."""
        return [self.nats, self.postgres, *([self.seaweed] if self.seaweed else [])]

    async def _ensure_streams(self) -> None:
        bus = await Bus.connect(self.settings.nats, name="torture", wait_ms=10_000)
        await ensure_streams(bus, log_bytes_max=10_000_000_000, notices_age_s=86_400, notices_max=2_000_000)
        await bus.close()

    def environ(self, **more: str) -> dict[str, str]:
        """Return the environment of a process of ours."""
        found = {name: value for name, value in os.environ.items() if not name.startswith("TEATREE_")}
        own = {"TEATREE_FAILPOINTS": str(self.plan), "TEATREE_LOAD_ROOTS": str(self.sources)}
        own |= self.apps.environ() | joined(self.clock.environ, self.sectors.environ)
        return {**found, **connection_environ(self.settings), **PACE, **own, **more}

    def manager_pid(self, model: str) -> int | None:
        """Return the pid of the model's running manager."""
        found = read_process(self.data / model / "manager.json")
        return found.pid if found else None

    def start_process(self, module: str, *arguments: str, **environ: str) -> subprocess.Popen[bytes]:
        """Start a dispatcher or a manager by hand."""
        with (self.folder / f"{module}-by-hand.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                env=self.environ(**environ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._others.append(process)
        return process

    def repair(self) -> None:
        """Undo every fault: all parts run, none is stopped, processes that faults started are killed."""
        self.plan.write_text("{}")
        (self.data / "ballast").unlink(missing_ok=True)
        for clock in (self.clock, self.postgres_clock):
            clock.move(0)
        for proxy in self.proxies.values():
            proxy.set("pass")
        for process in self._others:
            process.kill()
            process.wait()
        self._others.clear()
        for part in [*self.servers(), self.dispatcher]:
            for process in family(part.pid):
                send(process.pid, signal.SIGCONT)
            part.start()
        for file in self.data.glob("*/manager.json"):
            found = read_process(file)
            if found is not None:
                send(found.pid, signal.SIGCONT)

    def restart_dead(self) -> dict[str, str]:
        """Start servers again that died without a fault; return the ends of their logs."""
        found = {}
        for server in self.servers():
            if not server.is_running():
                found[server.name] = server.log_path.read_text(errors="replace")[-900:]
                server.start()
        return found

    def stop(self) -> None:
        """End everything."""
        if self._dispatcher is not None:
            self.repair()
            self._dispatcher.stop()
        end_managers(self.data, 10_000)
        for data in self.folder.glob("rival-*"):
            end_managers(data, 1_000)
        for part in reversed(self.servers()):
            part.stop()
        for proxy in self.proxies.values():
            proxy.close()
        if self.has_own_disk:
            subprocess.run(["umount", "-l", str(self.data)], check=True)

    def logs(self) -> dict[str, str]:
        """Return the ends of our processes' logs."""
        files = [part.log_path for part in [*self.servers(), self.dispatcher] if part.log_path.exists()]
        files += [*self.data.glob("*/manager.log*"), *self.folder.glob("*by-hand.log")]
        return {str(path.relative_to(self.folder)): path.read_text(errors="replace")[-20_000:] for path in files}


def family(pid: int | None) -> list[Any]:
    """Return a process with its children: all of a PostgreSQL."""
    try:
        process = psutil.Process(pid) if pid is not None else None
        return [process, *process.children(recursive=True)] if process else []
    except psutil.NoSuchProcess:
        return []


def send(pid: int | None, number: signal.Signals) -> bool:
    """Send a signal; returns whether the process exists."""
    try:
        if pid is not None:
            os.kill(pid, number)
    except ProcessLookupError:
        return False
    return pid is not None


def wait_ended(pid: int | None, wait_s: float = 5) -> None:
    """Wait until a killed process has ended."""
    deadline = time.monotonic() + wait_s
    while pid is not None and psutil.pid_exists(pid) and time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return
        except psutil.NoSuchProcess:
            return
        time.sleep(0.01)
