"""The stack in one command: all of it starts, stops, and is recovered after any crash.

The dispatcher and managers here are fakes that only start and end like real ones; the servers are real.
"""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil
import pytest
from attrs import evolve

from teatree.contracts.environment import read_settings
from teatree.contracts.errors import RetryError, TeatreeError
from teatree.contracts.process import ProcessId, end_processes, is_alive, process_id, read_process
from teatree.contracts.settings import NatsSettings, PostgresSettings, Settings, StoreSettings
from teatree.embedded.stack import Stack, StackOptions, Step, StepState
from teatree.messaging.bus import Bus
from teatree.messaging.streams import log_state
from teatree.storage.objects.stores import open_store

DISPATCHER = """
import os, subprocess, sys, time
manager = subprocess.Popen([sys.executable, "-m", "teatree_manager"], start_new_session=True)
print("the dispatcher runs", flush=True)
time.sleep(600)
"""
MANAGER = """
import json, os, signal, sys, time
from pathlib import Path
from attrs import asdict
from teatree.contracts.process import own_process
folder = Path(os.environ["TEATREE_DATA"]) / "sales"
if os.environ.get("MANAGER_IS") == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.environ.get("MANAGER_IS") != "unwritten":
    folder.mkdir(exist_ok=True)
    (folder / "manager.json.part").write_text(json.dumps(asdict(own_process())))
    (folder / "manager.json.part").rename(folder / "manager.json")
time.sleep(600)
"""
RUN = """
import os, sys
from pathlib import Path
from teatree.embedded.stack import Stack, StackOptions
Stack(StackOptions(data=Path(sys.argv[1]), environ=os.environ, managers_stop_ms_max=1000)).run()
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """Return an environment in which the dispatcher and the manager are fakes."""
    for module, text in (("teatree_dispatcher", DISPATCHER), ("teatree_manager", MANAGER)):
        (tmp_path / "fakes" / module).mkdir(parents=True)
        (tmp_path / "fakes" / module / "__init__.py").touch()
        (tmp_path / "fakes" / module / "__main__.py").write_text(text)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TEATREE_")}
    return {**kept, "PYTHONPATH": str(tmp_path / "fakes")}


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    """Return a data folder; a process that still uses it when the test is over is a failure, and is ended."""
    folder = tmp_path / "data"
    yield folder
    left = processes_of(folder)
    end_processes(left, wait_ms_max=0)
    assert not left


def processes_of(folder: Path) -> list[ProcessId]:
    """Return all processes that have to do with a data folder: by arguments, working folder or environment."""
    found = []
    for process in psutil.process_iter():
        try:
            seen = [*process.cmdline(), process.cwd(), process.environ().get("TEATREE_DATA", "")]
        except psutil.Error:
            continue
        identity = process_id(process.pid)
        if identity and process.pid != os.getpid() and any(str(folder) in text for text in seen):
            found.append(identity)
    return found


def wait_until(condition: Callable[[], bool]) -> None:
    """Return when the condition holds; fail if it never does."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def wait_for_manager(data: Path) -> ProcessId:
    """Return the manager that has written its file."""
    wait_until(lambda: read_process(data / "sales" / "manager.json") is not None)
    manager = read_process(data / "sales" / "manager.json")
    assert manager is not None
    return manager


def run_stack(data: Path, environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a stack in a separate process; return when it is ready."""
    process = subprocess.Popen([sys.executable, "-c", RUN, str(data)], env=dict(environ), start_new_session=True)
    wait_until(lambda: (data / "teatree.env").exists() or process.poll() is not None)
    assert process.poll() is None
    wait_for_manager(data)
    return process


async def check_serves(settings: Settings) -> None:
    """Fail unless NATS, the streams and the store answer to these settings."""
    bus = await Bus.connect(settings.nats, name="test")
    try:
        assert (await log_state(bus)).messages == 0
    finally:
        await bus.close()
    store = open_store(settings.store)
    store.put("x", b"1")
    assert store.get("x") == b"1"


async def test_teatree_env_exists_while_all_is_ready(data: Path, environ: dict[str, str]) -> None:
    """The file is private, holds every connection, and is deleted before anything stops."""
    steps: list[Step] = []
    with Stack(StackOptions(data=data, environ=environ), steps.append) as stack:
        env_file = data / "teatree.env"
        assert stat.S_IMODE(env_file.stat().st_mode) == 0o600
        settings = read_settings({}, data)
        assert (settings.nats, settings.postgres, settings.store) == (
            stack.settings.nats,
            stack.settings.postgres,
            stack.settings.store,
        )
        await check_serves(settings)
        wait_for_manager(data)
    assert not env_file.exists()
    ready = [step.part for step in steps if step.state is StepState.READY]
    assert sorted(ready[:2]) == ["nats", "postgres"]
    assert ready[2:] == ["store", "streams", "catalog", "dispatcher", "stack"]
    stopped = [step.part for step in steps if step.state is StepState.STOPPED]
    assert stopped == ["dispatcher", "managers", "postgres", "nats"]


async def test_with_s3_the_store_is_a_real_one(data: Path, environ: dict[str, str]) -> None:
    """`--s3` starts an S3 server with new keys."""
    with Stack(StackOptions(data=data, s3=True, environ=environ)) as stack:
        assert stack.settings.store.url.startswith("s3://")
        await check_serves(stack.settings)


async def test_every_part_can_be_an_outside_one(
    data: Path,
    environ: dict[str, str],
    nats_server: NatsSettings,
    postgres_server: PostgresSettings,
    s3_server: StoreSettings,
) -> None:
    """With outside servers nothing but the dispatcher is started, and they are left alone afterwards."""
    options = StackOptions(data, nats=nats_server, postgres=postgres_server, store=s3_server, environ=environ)
    with Stack(options) as stack:
        await check_serves(stack.settings)
        wait_for_manager(data)
    assert sorted(path.name for path in (data / "_servers").iterdir()) == ["dispatcher"]
    await check_serves(stack.settings)


def test_a_wrong_outside_part_is_a_clear_error_and_leaves_nothing(
    data: Path, environ: dict[str, str], postgres_server: PostgresSettings
) -> None:
    """The start raises the error, not a manager later; what was started is stopped again."""
    wrong = evolve(postgres_server, password="wrong")
    with pytest.raises(TeatreeError, match="password"):
        Stack(StackOptions(data, postgres=wrong, environ=environ)).start()
    assert not processes_of(data)
    assert not (data / "teatree.env").exists()


def test_a_folder_in_use_is_refused(data: Path, environ: dict[str, str]) -> None:
    """The second stack fails with the process that has the folder, and changes nothing."""
    with Stack(StackOptions(data=data, environ=environ)):
        with pytest.raises(RetryError, match=str(os.getpid())):
            Stack(StackOptions(data=data, environ=environ)).start()
        assert (data / "teatree.env").exists()


@pytest.mark.parametrize(
    "number", [signal.SIGINT, *(pytest.param(s, marks=pytest.mark.slow) for s in (signal.SIGTERM, signal.SIGHUP))]
)
def test_a_signal_stops_all_of_it(data: Path, environ: dict[str, str], number: signal.Signals) -> None:
    """After one Ctrl-C no process is left; a manager that ignores signals is killed. Further Ctrl-C do no harm."""
    process = run_stack(data, {**environ, "MANAGER_IS": "deaf"})
    for _ in range(3):
        process.send_signal(number)
        time.sleep(0.02)
    assert process.wait(30) == 0
    assert not processes_of(data)


@pytest.mark.parametrize("manager", ["written", "unwritten"])
def test_the_next_run_recovers_from_sigkill(data: Path, environ: dict[str, str], manager: str) -> None:
    """The processes that a killed stack left are ended; then all starts again, at the same address."""
    process = run_stack(data, environ)
    if manager == "unwritten":
        (data / "sales" / "manager.json").unlink()
    before = read_settings({}, data)
    process.kill()
    process.wait()
    left = processes_of(data)
    assert len(left) >= 4
    with Stack(StackOptions(data=data, environ=environ)) as stack:
        assert not any(is_alive(one) for one in left)
        assert stack.settings.nats == before.nats
        wait_for_manager(data)


def test_a_process_that_has_an_old_pid_is_not_ended(data: Path, environ: dict[str, str]) -> None:
    """A pid file does not match another process that has the same pid now."""
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    identity = process_id(bystander.pid)
    assert identity is not None
    stale = json.dumps({"pid": bystander.pid, "started": identity.started - 1, "boot": identity.boot})
    for folder in (data / "sales", data / "_servers" / "nats"):
        folder.mkdir(parents=True)
    (data / "sales" / "manager.json").write_text(stale)
    (data / "_servers" / "nats" / "server.pid.json").write_text(stale)
    with Stack(StackOptions(data=data, environ=environ)):
        pass
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()


@pytest.mark.parametrize("part", ["nats", "postgres", "dispatcher"])
async def test_a_part_that_dies_is_started_again_where_it_was(data: Path, environ: dict[str, str], part: str) -> None:
    """Clients that reconnect find it at the same address."""
    steps: list[Step] = []
    with Stack(StackOptions(data=data, environ=environ), steps.append) as stack:
        server = stack.server(part)
        first = server.pid
        assert first is not None
        steps.clear()
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: Step(part, StepState.READY) in steps)
        assert server.pid not in {None, first}
        await check_serves(read_settings({}, data))
    assert [step.state for step in steps if step.part == part][:2] == [StepState.DIED, StepState.READY]


def test_no_secret_is_in_arguments_or_logs(data: Path, environ: dict[str, str]) -> None:
    """Arguments can be read by every user of the machine, and logs are sent around."""
    with Stack(StackOptions(data=data, s3=True, environ=environ)) as stack:
        wait_for_manager(data)
        settings = stack.settings
        secrets = [settings.nats.password, settings.postgres.password, settings.store.secret_key]
        seen = [argument for one in processes_of(data) for argument in psutil.Process(one.pid).cmdline()]
        seen += [path.read_text(errors="replace") for path in data.rglob("*.log")]
        assert all(secret and not any(secret in text for text in seen) for secret in secrets)
