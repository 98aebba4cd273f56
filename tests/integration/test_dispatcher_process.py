"""The dispatcher as a process with real managers: started, killed, found again."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import attrs
import pytest

from teatree.contracts.environment import connection_environ
from teatree.contracts.process import end_processes, read_process
from teatree.contracts.settings import PostgresSettings, Settings
from teatree.messaging.bus import Bus
from teatree.messaging.notices import last_notice
from teatree.messaging.streams import ensure_streams
from teatree.storage.catalog.migrations.migrate import migrate
from teatree.storage.model_folder import model_folder

FAST = {
    "TEATREE_DISPATCHER_POLL_MS": "300",
    "TEATREE_DISPATCHER_RESTART_MS_MIN": "50",
    "TEATREE_MANAGER_POLL_MS": "300",
}


class _Installation:
    """Dispatchers and managers of one data folder."""

    def __init__(self, settings: Settings, bus: Bus) -> None:
        self.settings = settings
        self.bus = bus
        self.environ = {**os.environ, **connection_environ(settings), **FAST}
        self.dispatchers: list[subprocess.Popen[bytes]] = []

    def dispatcher(self, **environ: str) -> subprocess.Popen[bytes]:
        """Start a dispatcher."""
        self.settings.data.mkdir(parents=True, exist_ok=True)
        with (self.settings.data / "dispatcher.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "teatree_dispatcher"], env={**self.environ, **environ}, stderr=log
            )
        self.dispatchers.append(process)
        return process

    def manager_pid(self, model: str) -> int | None:
        """Return the pid of a model's living manager."""
        process = read_process(model_folder(self.settings.data, model).process)
        return process.pid if process else None

    async def send(self, model: str, function: str, request_id: str, body: object) -> dict[str, object]:
        """Send a request and return its outcome."""
        subject = self.bus.subjects.request(model, function)
        await self.bus.publish_log(subject, json.dumps(body).encode(), {"Teatree-Request-Id": request_id})
        async with asyncio.timeout(30):
            while True:
                found = await last_notice(self.bus, self.bus.subjects.notify_request(model, request_id))
                if found is not None and found.subject.rsplit(".", 1)[-1] in {"done", "rejected", "failed"}:
                    outcome: dict[str, object] = json.loads(found.body)
                    return outcome
                await asyncio.sleep(0.02)

    def close(self) -> None:
        """End all of it."""
        for process in self.dispatchers:
            process.kill()
            process.wait()
        files = self.settings.data.glob("*/manager.json")
        end_processes([p for p in map(read_process, files) if p is not None])

    def logs(self) -> str:
        """Return what dispatchers and managers printed."""
        paths: list[Path] = [*self.settings.data.glob("*.log"), *self.settings.data.glob("*/manager.log")]
        return "\n".join(path.read_text() for path in paths)


@pytest.fixture
async def installation(service_settings: Settings) -> AsyncIterator[_Installation]:
    """Return an installation without PostgreSQL in which nothing runs yet."""
    settings = attrs.evolve(service_settings, postgres=PostgresSettings())
    bus = await Bus.connect(settings.nats, name="test")
    await ensure_streams(bus, log_bytes_max=50_000_000, notices_age_s=3600, notices_max=10_000)
    made = _Installation(settings, bus)
    yield made
    print(made.logs())
    made.close()
    await bus.close()


def arguments(pid: int | None) -> str:
    """Return a process's arguments, which every user of the host can read."""
    return Path(f"/proc/{pid}/cmdline").read_text()


TABLE = {"tables": [{"table": "t", "columns": [{"name": "id", "type": "BIGINT"}]}]}


async def test_managers_outlive_dispatchers(installation: _Installation) -> None:
    """A manager keeps running over restarts of dispatchers; a killed manager is started again; nothing is lost."""
    dispatcher = installation.dispatcher()
    outcome = await installation.send("sales", "create_model", "a", TABLE)
    assert outcome["kind"] == "done", installation.logs()
    pid = installation.manager_pid("sales")
    assert pid is not None

    dispatcher.send_signal(signal.SIGTERM)
    assert dispatcher.wait(10) == 0
    assert installation.manager_pid("sales") == pid
    outcome = await installation.send("sales", "append", "b", {"table": "t", "rows": [{"id": 1}]})
    assert outcome["kind"] == "done"

    installation.dispatcher()
    installation.dispatcher()  # two do no harm
    await asyncio.sleep(1)
    assert installation.manager_pid("sales") == pid

    os.kill(pid, signal.SIGKILL)
    outcome = await installation.send("sales", "append", "c", {"table": "t", "rows": [{"id": 2}]})
    assert outcome["kind"] == "done"
    assert installation.manager_pid("sales") not in {None, pid}
    outcome = await installation.send("unknown", "append", "d", {"table": "t", "rows": [{"id": 2}]})
    assert outcome["kind"] == "rejected"


async def test_idle_manager_comes_back(installation: _Installation) -> None:
    """An idle manager exits; the next request, or the next read, starts another one."""
    installation.dispatcher(TEATREE_MANAGER_IDLE_EXIT_MS="500")
    for i, (function, body) in enumerate((("create_model", TABLE), ("append", {"table": "t", "rows": [{"id": 1}]}))):
        outcome = await installation.send("sales", function, f"a{i}", body)
        assert outcome["kind"] == "done", installation.logs()
        async with asyncio.timeout(20):
            while installation.manager_pid("sales") is not None:  # noqa: ASYNC110  another process
                await asyncio.sleep(0.05)
    subject = installation.bus.subjects.query("sales", "query")
    async with asyncio.timeout(20):
        while True:
            reply = await installation.bus.request(subject, b'{"sql": "SELECT count(*) AS n FROM t"}')
            if "Nats-Service-Error-Code" not in reply.headers:
                break
            assert json.loads(reply.body)["error"]["code"] == "unavailable"
            await asyncio.sleep(0.05)
    assert json.loads(reply.body)["rows"] == [{"n": 1}]


async def test_hanging_manager(installation: _Installation, postgres_server: PostgresSettings) -> None:
    """A manager that is alive but whose lease ends is replaced; its successor applies the request."""
    migrate(postgres_server)
    assert postgres_server.url
    postgres = {"TEATREE_POSTGRES_URL": postgres_server.url}
    if postgres_server.password:
        postgres["TEATREE_POSTGRES_PASSWORD"] = postgres_server.password
    installation.dispatcher(TEATREE_MANAGER_LEASE_MS="1000", TEATREE_DISPATCHER_HANGING_MS_MIN="500", **postgres)
    assert (await installation.send("sales", "create_model", "a", TABLE))["kind"] == "done"
    pid = installation.manager_pid("sales")
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    outcome = await installation.send("sales", "append", "b", {"table": "t", "rows": [{"id": 1}]})
    assert outcome["kind"] == "done"
    assert installation.manager_pid("sales") != pid


async def test_no_secret_in_arguments(installation: _Installation) -> None:
    """The processes' arguments and logs hold no password."""
    installation.dispatcher()
    await installation.send("sales", "create_model", "a", TABLE)
    pid = installation.manager_pid("sales")
    password = installation.settings.nats.password
    assert password
    for process in (pid, installation.dispatchers[0].pid):
        assert password not in arguments(process)
    assert password not in installation.logs()


async def test_cannot_run(installation: _Installation) -> None:
    """A dispatcher that cannot run logs the reason in one line and exits with the code for an operator."""
    wrong = installation.dispatcher(TEATREE_NATS_PASSWORD="no")
    unknown = installation.dispatcher(TEATREE_DISPATCHER_LAUNCHER="pods")
    assert (wrong.wait(20), unknown.wait(20)) == (78, 78)
    assert '"code": "not_authorized"' in installation.logs()
    assert "There is no launcher 'pods'." in installation.logs()
