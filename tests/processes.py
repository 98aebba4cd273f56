"""An installation under test: managers and dispatchers as processes, requests, notices, and versions.

`Installation.manager` and `.dispatcher` start processes with the environment of the test's own servers; `plan` arms
failpoints for them. `outcomes` and `check_chain` check the promises of an installation.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import os
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import duckdb
import psycopg

from teatree.contracts.environment import connection_environ
from teatree.contracts.errors import RetryError
from teatree.contracts.formats.manifest import Manifest
from teatree.contracts.process import ALLOCATOR_ENVIRON, ProcessId, end_processes, process_id, read_process
from teatree.contracts.settings import Settings
from teatree.messaging.bus import Bus
from teatree.messaging.notices import last_notice, read_notices
from teatree.messaging.streams import ensure_streams
from teatree.storage.model_folder import ModelFolder, model_folder
from teatree.storage.objects.stores import open_store
from teatree.storage.versions.chain import Chain
from teatree.storage.versions.reader import materialise

MODEL = "sales"
TERMINAL = frozenset({"done", "rejected", "failed"})
WAIT_S = 60
"""Seconds that any wait may take on a busy machine; no test here asserts a time."""
LOOK_S = 0.02
FAST = {
    "TEATREE_MANAGER_LEASE_MS": "5000",
    "TEATREE_MANAGER_POLL_MS": "200",
    "TEATREE_MANAGER_ARCHIVE_INTERVAL_MS": "50",
    "TEATREE_DISPATCHER_POLL_MS": "200",
    "TEATREE_DISPATCHER_RESTART_MS_MIN": "20",
    "TEATREE_DISPATCHER_RESTART_MS_MAX": "200",
    "TEATREE_LIMITS_DISK_FREE_BYTES_MIN": "1000000",
}


class ManagerServer:
    """A process that forks managers and dispatchers quickly: see `manager_server`."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("manager_server.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**ALLOCATOR_ENVIRON, **os.environ},
        )

    def ask(self, **order: Any) -> dict[str, Any]:
        """Give an order and return the answer."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(order) + "\n")
        self._server.stdin.flush()
        answer: dict[str, Any] = json.loads(self._server.stdout.readline())
        return answer

    def close(self) -> None:
        """End the server; tests end the managers that they start."""
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait()


class Running:
    """A process that was started."""

    def __init__(self, pid: int, poll: Callable[[], int | None], log: Path) -> None:
        self.pid = pid
        self._poll = poll
        self._code: int | None = None
        self.log = log

    @property
    def code(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        if self._code is None:
            self._code = self._poll()
        return self._code

    async def exit_code(self) -> int:
        """Wait for its end."""
        await until(lambda: self.code is not None, lambda: f"process {self.pid} to end: {self.output()}")
        assert self.code is not None
        return self.code

    def output(self) -> str:
        """Return what it has printed."""
        return self.log.read_text() if self.log.exists() else ""

    async def until_printed(self, text: str) -> None:
        """Wait until it has printed a text."""
        await until(lambda: text in self.output() or self.code is not None, lambda: f"{text!r} in {self.output()}")
        assert text in self.output()

    async def is_stopped(self) -> None:
        """Wait until SIGSTOP has stopped it."""

        def state() -> str:
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]

        await until(lambda: self.code is not None or state() == "T", lambda: f"a stop: {self.output()}")
        assert self.code is None

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        if self.code is None:
            os.kill(self.pid, number)

    async def kill(self) -> None:
        """End it at once."""
        self.send(signal.SIGKILL)
        await self.exit_code()

    async def leave(self) -> int:
        """Ask it to drain and leave; return its exit code."""
        self.send(signal.SIGTERM)
        return await self.exit_code()


class Installation:
    """NATS, a store and perhaps PostgreSQL, with one model and the processes that work on it."""

    def __init__(self, settings: Settings, bus: Bus, server: ManagerServer, folder: Path) -> None:
        self.settings = settings
        self.bus = bus
        self.folder = folder
        self._server = server
        self._running: list[Running] = []
        self._data: set[Path] = {settings.data}
        self.chain = Chain(open_store(settings.store), settings.nats.prefix, MODEL)
        self.sent: list[str] = []
        """Ids of all accepted requests, in their order."""

    @classmethod
    async def make(cls, settings: Settings, server: ManagerServer, folder: Path) -> Self:
        """Return an installation without running processes."""
        bus = await Bus.connect(settings.nats, name="test")
        await ensure_streams(bus, log_bytes_max=50_000_000, notices_age_s=3600, notices_max=10_000)
        return cls(settings, bus, server, folder)

    # --- processes ---

    def environ(self, plan: dict[str, Any] | None, data: Path | None, environ: dict[str, str]) -> dict[str, str]:
        """Return a process's environment."""
        found = {name: value for name, value in os.environ.items() if not name.startswith("TEATREE_")}
        found |= connection_environ(self.settings) | FAST | environ
        if data is not None:
            found["TEATREE_DATA"] = str(data)
            self._data.add(data)
        if plan is not None:
            path = self.folder / f"plan-{hashlib.sha256(json.dumps(plan).encode()).hexdigest()[:16]}.json"
            path.write_text(json.dumps(plan))
            found["TEATREE_FAILPOINTS"] = str(path)
        return found

    def manager(
        self,
        plan: dict[str, Any] | None = None,
        *,
        data: Path | None = None,
        poison: int | None = None,
        speed: float = 1,
        **environ: str,
    ) -> Running:
        """Start a manager of the model by hand; `poison` is an id whose `update` kills it.

        Its clock runs `speed` times as fast as real time: what it pauses for, and its limits, are as much shorter.
        """
        log = self.folder / f"manager-{len(self._running)}.log"
        found = self.environ(plan, data, environ)
        order: dict[str, Any] = {"model": MODEL, "log": str(log), "environ": found, "speed": speed}
        if poison is not None:
            order["poison"] = poison
        return self._fork(order, log)

    async def created(self, body: Any, plan: dict[str, Any] | None = None, **options: Any) -> Running:
        """Start a manager that creates the model, after its request: a manager without a model leaves."""
        await self.publish("create_model", body, "create")
        manager = self.manager(plan, **options)
        assert (await self.outcome("create"))["kind"] == "done"
        return manager

    def dispatcher(self, plan: dict[str, Any] | None = None, **environ: str) -> Running:
        """Start a dispatcher."""
        log = self.folder / f"dispatcher-{len(self._running)}.log"
        return self._fork({"model": None, "log": str(log), "environ": self.environ(plan, None, environ)}, log)

    def _fork(self, order: dict[str, Any], log: Path) -> Running:
        pid = self._server.ask(**order)["pid"]
        process = Running(pid, lambda: self._server.ask(poll=pid)["code"], log)
        self._running.append(process)
        return process

    async def until_done(self, plan: dict[str, Any] | None = None, **options: Any) -> list[Running]:
        """Start managers, the next when one ends, until every request has its outcome; the last one keeps running."""
        started: list[Running] = []
        while len(started) < 20:
            manager = self.manager(plan, **options)
            started.append(manager)
            while manager.code is None:
                if not await self.waiting():
                    return started
                await asyncio.sleep(LOOK_S)
        raise AssertionError("\n".join(m.output() for m in started))

    async def close(self) -> None:
        """End all processes; print their output, for the report of a test that failed."""
        for process in self._running:
            process.send(signal.SIGKILL)
        end_processes(_processes_on(self._data), ask=signal.SIGKILL)
        for process in self._running:
            print(f"--- {process.log.name}\n{process.output()}")
        for log in (path for data in self._data for path in data.glob("*/manager.log")):
            print(f"--- {log}\n{log.read_text()}")
        await self.bus.close()

    def postgres(self) -> psycopg.Connection[tuple[Any, ...]]:
        """Return a connection to the catalog's database; its `with` closes it."""
        settings = self.settings.postgres
        return psycopg.connect(settings.url or "", password=settings.password)

    def local(self, data: Path | None = None) -> ModelFolder:
        """Return the model's folder below a data folder."""
        return model_folder(data or self.settings.data, MODEL)

    def manager_pid(self) -> int | None:
        """Return the pid of the model's running manager."""
        found = read_process(self.local().process)
        return found.pid if found else None

    async def until_ended(self, pid: int) -> None:
        """Wait until a process has ended."""
        await until(lambda: process_id(pid) is None, lambda: f"process {pid} to end")

    async def reconnected(self) -> None:
        """Wait until the test's own connection to NATS works, after the server was started again."""

        async def works() -> bool:
            try:
                await self.bus.js("INFO", timeout_ms=500)
            except RetryError:
                return False
            return True

        await until_async(works)

    # --- requests and notices ---

    async def publish(self, function: str, body: Any, request_id: str, **headers: str) -> int:
        """Publish a request to the log; return its sequence."""
        subject = self.bus.subjects.request(MODEL, function)
        payload = body if isinstance(body, bytes) else json.dumps(body).encode()
        ack = await self.bus.publish_log(subject, payload, {"Teatree-Request-Id": request_id, **headers})
        self.sent.append(request_id)
        return ack.seq

    async def send(self, function: str, body: Any, request_id: str, **headers: str) -> dict[str, Any]:
        """Send a request and return its outcome."""
        await self.publish(function, body, request_id, **headers)
        return await self.outcome(request_id)

    async def outcome(self, request_id: str) -> dict[str, Any]:
        """Wait for a request's outcome."""
        async with asyncio.timeout(WAIT_S):
            while True:
                for kind in TERMINAL:
                    found = await last_notice(self.bus, self.bus.subjects.notify(MODEL, request_id, kind))
                    if found is not None:
                        outcome: dict[str, Any] = json.loads(found.body)
                        return outcome
                await asyncio.sleep(LOOK_S)

    async def has_outcome(self, request_id: str) -> bool:
        """Return whether a request has its outcome."""
        return request_id in await self.notices()

    async def waiting(self) -> set[str]:
        """Return the ids of requests without an outcome."""
        return set(self.sent) - set(await self.notices())

    async def notices(self) -> dict[str, list[tuple[str, bytes]]]:
        """Return the terminal notices by request id: kind and bytes."""
        found: dict[str, list[tuple[str, bytes]]] = defaultdict(list)
        after = 0
        while batch := await read_notices(self.bus, self.bus.subjects.notify_model(MODEL), after=after):
            for message in batch:
                tokens = message.subject.split(".")
                if tokens[-1] in TERMINAL and tokens[-2] != "version" and len(tokens) == 5:
                    found[tokens[3]].append((tokens[-1], message.body))
            after = batch[-1].seq
        return found

    async def group_notices(self, group: str) -> dict[int, list[bytes]]:
        """Return a bulk sender's notices by version."""
        batch = await read_notices(self.bus, self.bus.subjects.notify_group(MODEL, group))
        found: dict[int, list[bytes]] = defaultdict(list)
        for message in batch:
            found[json.loads(message.body)["version"]].append(message.body)
        return found

    async def outcomes(self, ids: Iterable[str] | None = None) -> dict[str, dict[str, Any]]:
        """Return the outcome of every request; all its notices must be the same bytes."""
        notices = await self.notices()
        outcomes: dict[str, dict[str, Any]] = {}
        for request_id in ids if ids is not None else self.sent:
            assert len(set(notices[request_id])) == 1, f"{request_id}: {notices[request_id]}"
            outcomes[request_id] = json.loads(notices[request_id][0][1])
        return outcomes

    async def ask(self, sql: str, **arguments: Any) -> list[dict[str, Any]]:
        """Send a direct read; return its rows."""
        body = json.dumps({"sql": sql, **arguments}).encode()
        async with asyncio.timeout(WAIT_S):
            while True:
                try:
                    reply = await self.bus.request(self.bus.subjects.query(MODEL, "query"), body)
                except RetryError:  # no manager subscribes yet
                    await asyncio.sleep(LOOK_S)
                    continue
                if "Nats-Service-Error-Code" not in reply.headers:
                    rows: list[dict[str, Any]] = json.loads(reply.body)["rows"]
                    return rows
                await asyncio.sleep(LOOK_S)

    # --- versions and objects ---

    def check_chain(self) -> list[Manifest]:
        """Return all manifests, checked to be without gaps, each the child of the one before, with growing members."""
        manifests = [self.chain.get(number) for number in range(1, self.chain.newest_version() + 1)]
        for before, after in itertools.pairwise(manifests):
            assert after.parent_write_id == before.write_id
            assert after.offset >= before.offset
            assert after.at >= before.at
            assert after.user_version >= before.user_version
        return manifests

    def read(self, sql: str, version: int | None = None) -> list[tuple[Any, ...]]:
        """Return a query's rows from the blocks of a version, by default the newest."""
        number = version or self.chain.newest_version()
        path = self.folder / f"read-{number}.duckdb"
        materialise(self.chain.store, self.chain.get(number), path)
        with duckdb.connect(str(path), read_only=True) as con:
            rows = con.execute(sql).fetchall()
        path.unlink()
        return rows

    def objects(self) -> dict[str, str]:
        """Return the hash of every object in the store."""
        store = self.chain.store
        return {info.key: hashlib.sha256(store.get(info.key)).hexdigest() for info in store.list("")}


def _processes_on(folders: Iterable[Path]) -> list[ProcessId]:
    """Return the processes that were started for data folders, also managers that wait for another one's lease."""
    wanted = {f"TEATREE_DATA={folder}".encode() for folder in folders}
    found: list[ProcessId | None] = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # it ended, or is not ours
            if wanted.intersection(path.read_bytes().split(b"\0")):
                found.append(process_id(int(path.parent.name)))
    return [process for process in found if process is not None]


async def until(holds: Callable[[], bool], what: Callable[[], str] = lambda: "a condition") -> None:
    """Wait until a condition holds; fail after a long time, with `what` in the message."""
    try:
        async with asyncio.timeout(WAIT_S):
            while not holds():  # noqa: ASYNC110  the condition is about other processes
                await asyncio.sleep(LOOK_S)
    except TimeoutError:
        raise AssertionError(f"waited in vain for {what()}") from None


async def until_async(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait until an asynchronous condition holds."""
    async with asyncio.timeout(WAIT_S):
        while not await holds():  # noqa: ASYNC110  the condition is about other processes
            await asyncio.sleep(LOOK_S)


def table(*columns: str, key: str | None = None) -> dict[str, Any]:
    """Return a `create_model` body with one table `t` of BIGINT columns."""
    made: dict[str, Any] = {"table": "t", "columns": [{"name": name, "type": "BIGINT"} for name in columns]}
    if key:
        made["primary_key"] = [key]
    return {"tables": [made]}


def rows(*ids: int, **values: int) -> dict[str, Any]:
    """Return an `append` body with rows of these ids."""
    return {"table": "t", "rows": [{"id": i, **values} for i in ids]}
