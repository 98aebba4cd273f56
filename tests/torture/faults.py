"""The faults: a schedule from a seed, and how each of them is injected and ends."""

from __future__ import annotations

import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from places import places
from torture.app.faults import APP
from torture.fault import Fault, Inject, ViolationError, arm, disarm, running_pid
from torture.faults_disk import DISK
from torture.faults_log import LOG
from torture.faults_network import NETWORK
from torture.faults_versions import VERSIONS
from torture.fixed_requests import MODELS
from torture.preload import MovedClock
from torture.stage import LEASE_MS, Stage, family, send

LOSES_DISK = frozenset({"data_lost", "local_flipped", "local_sector_bad"})
"""Faults that take or damage what a local reader reads."""
HINDERS_MANAGER = frozenset(
    {"kill_manager", "kill_manager_again", "kill_in_checkpoint", "pause_manager", "rival_manager", "leave", "failpoint"}
    | {"wal_cut", "wal_flipped", "wal_deleted", "file_flipped", "file_sector_bad", "data_lost"}
)
"""Faults that end or stop their model's manager: its repairs wait for the next one."""
HINDERS_ALL = frozenset({"kill_dispatcher", "postgres_away", "kill_s3", "pause_s3", "s3_cut", "s3_half_open"})
"""Faults that do so to every model's, or make unavailable what it repairs from."""
DAMAGES_STORE = frozenset({"pack_flipped", "manifest_flipped", "manifest_vanished"})
"""Faults that damage objects for some seconds."""


_IN_VAIN = re.compile(
    "no manager|no file|no disk|no compiler|met nothing|could not|has vanished|killed 0|paused 0|fired 0|successor"
    "|stopped None"
)


def make_schedule(seed: int, run_s: float, *, s3: bool, kinds: tuple[str, ...] = (), gap_s: float = 1.5) -> list[Fault]:
    """Return the faults of a seed."""
    rng = random.Random(f"{seed}-faults")
    weights = {kind: weight for kind, (weight, _, needs_s3) in FAULTS.items() if s3 or not needs_s3}
    if kinds:
        weights = {kind: weights[kind] for kind in kinds}
    schedule: list[Fault] = []
    left_s = run_s
    while left_s > 0:
        kind = rng.choices(list(weights), list(weights.values()))[0]
        model = rng.choices(MODELS, (80, 15, 5))[0]
        gap = round(min(rng.expovariate(1 / gap_s), 5 * gap_s), 2)
        schedule.append(Fault(gap, kind, model, rng.random(), round(rng.uniform(0.3, 2.5), 2)))
        left_s -= gap
    return schedule


def took_effect(done: str) -> bool:
    """Return whether `inject` had an effect, by its description."""
    return not _IN_VAIN.search(done)


def inject(stage: Stage, fault: Fault) -> str:
    """Inject a fault and return what was done, when it is over."""
    return FAULTS[fault.kind][1](stage, fault)


def _kill_manager(stage: Stage, fault: Fault) -> str:
    pid = running_pid(stage, fault)
    time.sleep(fault.chance / 5)  # some are killed while they start
    return f"killed {pid}" if send(pid, signal.SIGKILL) else "no manager"


def _kill_manager_again(stage: Stage, fault: Fault) -> str:
    """Kill each manager that starts, for a while: also while it starts, restores and repairs."""
    rng, killed = random.Random(fault.chance), 0
    deadline = time.monotonic() + fault.last_s
    while time.monotonic() < deadline:
        killed += send(stage.manager_pid(fault.model), signal.SIGKILL)
        time.sleep(rng.uniform(0.02, 0.6))
    return f"killed {killed}"


def _pause_manager(stage: Stage, fault: Fault) -> str:
    """SIGSTOP past the lease: on its own host a successor proves it dead and takes over."""
    pid = running_pid(stage, fault)
    if not send(pid, signal.SIGSTOP):
        return "no manager"
    time.sleep(LEASE_MS / 1000 + 3 * fault.last_s)
    alive = send(pid, signal.SIGCONT)
    return f"stopped {pid}, continued: {alive}"


def _rival(stage: Stage, fault: Fault) -> str:
    """SIGSTOP past the lease while a manager on "another host" takes over; then both run, then the second ends."""
    pid = running_pid(stage, fault)
    send(pid, signal.SIGSTOP)
    time.sleep(LEASE_MS / 1000)
    rival = stage.start_process(
        "teatree_manager", fault.model, TEATREE_HOST="rival", TEATREE_DATA=str(stage.folder / f"rival-{fault.model}")
    )
    time.sleep(1 + fault.last_s)
    send(pid, signal.SIGCONT)
    time.sleep(fault.last_s)
    rival.send_signal(signal.SIGKILL if fault.chance < 0.5 else signal.SIGTERM)
    try:
        code = rival.wait(15)
    except subprocess.TimeoutExpired:
        rival.kill()
        code = rival.wait()
        return f"stopped {pid}, rival {rival.pid} did not leave on SIGTERM; killed, {code}"
    return f"stopped {pid}, rival {rival.pid} ended with {code}"


def _failpoint(stage: Stage, fault: Fault) -> str:
    """Arm a failpoint; the next manager or dispatcher that starts meets it."""
    rng = random.Random(fault.chance)
    name = rng.choice([name for part in ("manager", "dispatcher", "fork") for name in places(part)])
    action = rng.choices(["crash", "error", "stop", "delay"], (55, 15, 15, 15))[0]
    hit, times = rng.randint(1, 4), rng.randint(1, 2)
    rule = {"action": action, "hit": hit, "times": times, "delay_ms": 2_000}
    arm(stage, name, rule)
    if name.startswith("dispatcher"):
        stage.kill(stage.dispatcher)
        stage.dispatcher.start()
    else:
        send(stage.manager_pid(fault.model), signal.SIGKILL)
    deadline = time.monotonic() + 3 + fault.last_s
    while time.monotonic() < deadline:
        time.sleep(0.1)
        _continue_stopped(stage, fault)
    fired = disarm(stage, name, times)
    time.sleep(0.1)  # one that fired at the very end has stopped by now
    _continue_stopped(stage, fault)
    return f"{name}: {action}, hit {hit}, fired {fired} of {times}"


def _continue_stopped(stage: Stage, fault: Fault) -> None:
    """Continue processes that a failpoint stopped, past their lease, and start a dispatcher that a failpoint ended."""
    for pid in [stage.dispatcher.pid, *(stage.manager_pid(model) for model in MODELS)]:
        if pid is not None and _is_stopped(pid):
            time.sleep(LEASE_MS / 1000 + fault.last_s)
            send(pid, signal.SIGCONT)
    if stage.dispatcher.pid is None:
        stage.dispatcher.start()


def _is_stopped(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    except psutil.NoSuchProcess:
        return False


def _kill_dispatcher(stage: Stage, fault: Fault) -> str:
    pid = stage.kill(stage.dispatcher)
    time.sleep(fault.last_s)
    stage.dispatcher.start()
    return f"killed {pid}"


def _second_dispatcher(stage: Stage, fault: Fault) -> str:
    second = stage.start_process("teatree_dispatcher")
    time.sleep(2 + fault.last_s)
    second.send_signal(signal.SIGKILL if fault.chance < 0.5 else signal.SIGTERM)
    return f"{second.pid} ended with {second.wait(15)}"


def _kill_server(name: str) -> Callable[[Stage, Fault], str]:
    def run(stage: Stage, fault: Fault) -> str:
        server = next(part for part in stage.servers() if part.name == name)
        pid = stage.kill(server)
        time.sleep(0 if fault.chance < 0.5 else fault.last_s * 2)
        server.start()
        return f"killed {pid}"

    return run


def _pause_server(name: str) -> Callable[[Stage, Fault], str]:
    """Stop a server with all its children for a while: connections stay open without answers."""

    def run(stage: Stage, fault: Fault) -> str:
        server = next(part for part in stage.servers() if part.name == name)
        pids = [process.pid for process in family(server.pid)]
        for pid in pids:
            send(pid, signal.SIGSTOP)
        time.sleep(fault.last_s * 2)
        for pid in pids:
            send(pid, signal.SIGCONT)
        return f"paused {len(pids)} processes"

    return run


def _leave(stage: Stage, fault: Fault) -> str:
    """Ask the manager to leave while requests arrive."""
    pid = running_pid(stage, fault)
    if not send(pid, signal.SIGTERM):
        return "no manager"
    time.sleep(fault.last_s / 2)
    return f"asked {pid} to leave"


OPEN = "import duckdb, sys; duckdb.connect(sys.argv[1], read_only=sys.argv[2] == 'True').execute('SELECT 1')"


def _file_opened(stage: Stage, fault: Fault) -> str:
    """Open the read-write file in another process: success beside a manager means that the lock is broken."""
    pid = running_pid(stage, fault)
    files = sorted((stage.data / fault.model).glob("rw/*/model.duckdb"))
    if pid is None or not files or not _has_open(pid, files[-1]):
        return "no manager"
    command = [sys.executable, "-c", OPEN, str(files[-1]), str(fault.chance < 0.5)]
    tried = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if not tried.returncode and _has_open(pid, files[-1]):
        raise ViolationError(f"{files[-1]} could be opened beside the manager {pid}")
    return f"beside {pid}, DuckDB answered {tried.stderr[-100:]!r}" if tried.returncode else f"{pid} has vanished"


def _has_open(pid: int, path: Path) -> bool:
    try:
        return any(Path(file.path) == path for file in psutil.Process(pid).open_files())
    except psutil.NoSuchProcess:
        return False


def _clock_moved(clock_of: Callable[[Stage], MovedClock]) -> Inject:
    """Move a clock by an hour, ahead or back, for a while."""

    def run(stage: Stage, fault: Fault) -> str:
        clock, seconds = clock_of(stage), 3_600 if fault.chance < 0.5 else -3_600
        if not clock.environ:
            return "no compiler"
        clock.move(seconds)
        time.sleep(fault.last_s * 2)
        clock.move(0)
        return f"moved the clock by {seconds} s"

    return run


def _postgres_away(stage: Stage, fault: Fault) -> str:
    """PostgreSQL is unavailable for a minute or two, while managers are killed and started."""
    stage.kill(stage.postgres)
    deadline, killed = time.monotonic() + 60 + 25 * fault.last_s, 0
    while time.monotonic() < deadline:
        time.sleep(5)
        killed += send(stage.manager_pid(fault.model), signal.SIGKILL)
    stage.postgres.start()
    return f"unavailable for {60 + 25 * fault.last_s:.0f} s, {killed} managers killed meanwhile"


def _nothing(stage: Stage, fault: Fault) -> str:
    return "quiet"


FAULTS: dict[str, tuple[int, Inject, bool]] = {
    **APP,
    **DISK,
    **LOG,
    **NETWORK,
    **VERSIONS,
    "kill_manager": (20, _kill_manager, False),
    "kill_manager_again": (6, _kill_manager_again, False),
    "pause_manager": (6, _pause_manager, False),
    "rival_manager": (5, _rival, False),
    "failpoint": (20, _failpoint, False),
    "kill_dispatcher": (6, _kill_dispatcher, False),
    "second_dispatcher": (3, _second_dispatcher, False),
    "kill_nats": (8, _kill_server("nats"), False),
    "pause_nats": (3, _pause_server("nats"), False),
    "kill_postgres": (6, _kill_server("postgres"), False),
    "pause_postgres": (4, _pause_server("postgres"), False),
    "kill_s3": (6, _kill_server("seaweed"), True),
    "pause_s3": (6, _pause_server("seaweed"), True),
    "leave": (4, _leave, False),
    "file_opened": (3, _file_opened, False),
    "clock_moved": (4, _clock_moved(lambda stage: stage.clock), False),
    "postgres_clock_moved": (3, _clock_moved(lambda stage: stage.postgres_clock), False),
    "postgres_away": (1, _postgres_away, False),
    "quiet": (5, _nothing, False),
}
"""Weight, what it does, and whether it needs an S3 server."""
