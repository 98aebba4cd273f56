"""Faults of the disk: files in a model's folder are lost, cut, flipped, unreadable, or the disk is full."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from damage import flip
from torture.fault import Fault, Inject, arm, disarm, running_pid, times_fired
from torture.stage import Stage, send, wait_ended

CHECKPOINT = "manager.capture.begin"
COMMITTED_WAIT_S = 4.0
"""Seconds in which a manager has to reach the point between its commit and its checkpoint."""


def _data_lost(stage: Stage, fault: Fault) -> str:
    """Kill the manager and delete the model's folder on this host."""
    pid = running_pid(stage, fault)
    send(pid, signal.SIGKILL)
    wait_ended(pid)
    shutil.rmtree(stage.data / fault.model, ignore_errors=True)
    return f"killed {pid}, deleted its folder"


def _damage(suffix: str, how: Callable[[Path, random.Random], str]) -> Callable[[Stage, Fault], str]:
    """Kill the manager and, before the next one opens it, damage its read-write file or the log beside it."""

    def run(stage: Stage, fault: Fault) -> str:
        running_pid(stage, fault)
        # A stopped dispatcher starts no successor that could have the file open while it is damaged.
        send(stage.dispatcher.pid, signal.SIGSTOP)
        try:
            pid = stage.manager_pid(fault.model)
            send(pid, signal.SIGKILL)
            wait_ended(pid)
            if stage.manager_pid(fault.model) is not None:
                return "a successor was there already"
            files = sorted((stage.data / fault.model).glob(f"rw/*/model.duckdb{suffix}"))
            if not files or not files[-1].stat().st_size:
                return f"killed {pid}, no file"
            return f"killed {pid}, {how(files[-1], random.Random(fault.chance))}"
        finally:
            send(stage.dispatcher.pid, signal.SIGCONT)

    return run


def _cut(path: Path, rng: random.Random) -> str:
    size, left = path.stat().st_size, rng.randrange(path.stat().st_size)
    with path.open("r+b") as file:
        file.truncate(left)
    return f"cut {path.name} from {size} to {left} bytes"


def _flip(path: Path, rng: random.Random) -> str:
    place = rng.randrange(path.stat().st_size)
    flip(path, place, 1 << rng.randrange(8))
    return f"flipped a bit of byte {place} of {path.name}"


def _delete(path: Path, rng: random.Random) -> str:
    path.unlink()
    return f"deleted {path.name}"


def _file_limit(stage: Stage, fault: Fault) -> str:
    """Limit the size of the manager's files: its writes fail in the middle, as on a full disk."""
    pid = running_pid(stage, fault)
    if pid is None:
        return "no manager"
    limit = random.Random(fault.chance).choice([0, 4_096, 100_000, 300_000, 800_000])
    try:
        process = psutil.Process(pid)
        before = process.rlimit(psutil.RLIMIT_FSIZE)
        process.rlimit(psutil.RLIMIT_FSIZE, (limit, before[1]))
        time.sleep(fault.last_s)
        process.rlimit(psutil.RLIMIT_FSIZE, before)
    except psutil.NoSuchProcess:
        return f"{pid} has vanished"
    return f"limited the files of {pid} to {limit} bytes"


def _damage_wal(how: Callable[[Path, random.Random], str]) -> Inject:
    """Damage the write-ahead log of a manager between a commit and its checkpoint: only there it has one."""
    damage = _damage(".wal", how)

    def run(stage: Stage, fault: Fault) -> str:
        pid = running_pid(stage, fault)
        arm(stage, CHECKPOINT, {"action": "stop", "hit": 1 + int(fault.chance * 3), "times": 1})
        send(pid, signal.SIGKILL)  # the next one reads the plan
        deadline = time.monotonic() + COMMITTED_WAIT_S
        while time.monotonic() < deadline and not times_fired(stage, CHECKPOINT):
            time.sleep(0.02)
        disarm(stage, CHECKPOINT, 1)
        return damage(stage, fault)

    return run


def _kill_in_checkpoint(stage: Stage, fault: Fault) -> str:
    """SIGKILL within milliseconds of the moment at which a checkpoint begins."""
    pid = running_pid(stage, fault)
    arm(stage, CHECKPOINT, {"action": "delay", "delay_ms": 30, "hit": 1 + int(fault.chance * 3), "times": 1})
    send(pid, signal.SIGKILL)
    deadline = time.monotonic() + COMMITTED_WAIT_S
    while time.monotonic() < deadline and not times_fired(stage, CHECKPOINT):
        time.sleep(0.002)
    if not disarm(stage, CHECKPOINT, 1):
        return "no manager came to a checkpoint"
    time.sleep(0.028 + random.Random(fault.chance).random() * 0.012)
    pid = stage.manager_pid(fault.model)
    return f"killed {pid} about its checkpoint" if send(pid, signal.SIGKILL) else "no manager"


def _disk_full(stage: Stage, fault: Fault) -> str:
    """Fill the disk of the data folder to its last byte, then free it."""
    if not stage.has_own_disk:
        return "no disk: mounting a tmpfs takes root"
    ballast = stage.data / "ballast"
    left = random.Random(fault.chance).choice([0, 4_096, 50_000, 300_000])
    try:
        with ballast.open("wb") as file:
            free = shutil.disk_usage(stage.data).free
            file.write(b"x" * max(free - left, 0))
    except OSError:
        left = 0
    time.sleep(fault.last_s)
    ballast.unlink()
    return f"filled the disk up to {left} bytes"


def _sectors(pattern: str, *, dead: bool) -> Inject:
    """Make the newest file of some kind unreadable for a while; `dead` if its manager is killed first."""

    def run(stage: Stage, fault: Fault) -> str:
        if not stage.sectors.environ:
            return "no compiler"
        pid = running_pid(stage, fault)
        files = sorted((stage.data / fault.model).glob(pattern), key=lambda path: (len(path.name), path))
        if not files:
            return "no file"
        try:
            stage.sectors.break_file(files[-1].resolve())
        except FileNotFoundError:
            return "no file"
        if dead:
            send(pid, signal.SIGKILL)
        time.sleep(fault.last_s + 1)
        stage.sectors.repair()
        return f"{files[-1].name} was unreadable"

    return run


DISK: dict[str, tuple[int, Inject, bool]] = {
    "data_lost": (4, _data_lost, False),
    "wal_cut": (4, _damage_wal(_cut), False),
    "wal_flipped": (4, _damage_wal(_flip), False),
    "wal_deleted": (2, _damage_wal(_delete), False),
    "kill_in_checkpoint": (5, _kill_in_checkpoint, False),
    "file_flipped": (5, _damage("", _flip), False),
    "file_sector_bad": (3, _sectors("rw/*/model.duckdb", dead=True), False),
    "local_sector_bad": (3, _sectors("versions/*.duckdb", dead=False), False),
    "file_limit": (3, _file_limit, False),
    "disk_full": (5, _disk_full, False),
}
"""Weight, what it does, and whether it needs an S3 server."""
