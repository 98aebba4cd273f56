"""The identity of a process on this host: pids are reused, so it includes the start time and the boot id."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

from attrs import frozen

from teatree.contracts.extras import extra_for

ALLOCATOR_ENVIRON = {"DUCKDB_JE_MALLOC_CONF": "retain:false"}
"""Environment of a process whose memory is limited: otherwise DuckDB's allocator keeps the address space of what it
freed, which counts as used (`RLIMIT_DATA`), and after one large text nothing else in the process could allocate."""

_START_TIME_FIELD = 22 - 3
"""Index of `starttime` in /proc/<pid>/stat once pid and command, which may hold blanks, are cut off."""
_STATE_FIELD = 0


@frozen
class ProcessId:
    """One process, identified uniquely on this host."""

    pid: int
    started: int
    """Start time by the kernel: clock ticks since boot (Linux), else milliseconds since the epoch."""
    boot: str = ""
    """The kernel's boot id; empty where there is none."""


def own_process() -> ProcessId:
    """Return the identity of this process."""
    identity = process_id(os.getpid())
    if identity is None:
        msg = "This process was not found: is /proc mounted?"
        raise RuntimeError(msg)
    return identity


def process_id(pid: int) -> ProcessId | None:
    """Return the identity of the live process with this pid; None if there is none, or only its zombie."""
    if Path("/proc/self/stat").exists():
        return _from_proc(pid)
    with extra_for("Identifying a process on this platform", "embedded"):
        import psutil  # noqa: PLC0415 - needed only where there is no /proc

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return ProcessId(pid, round(process.create_time() * 1000))
    except psutil.NoSuchProcess:
        return None


def read_process(path: Path) -> ProcessId | None:
    """Return the live process that a JSON file names by `pid`, `started` and `boot`; None if it has ended.

    None also for an unreadable file: its writer was killed while writing. Other members are ignored.
    """
    try:
        found = json.loads(path.read_bytes())
        process = ProcessId(found["pid"], found["started"], found["boot"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return process if is_alive(process) else None


def is_alive(process: ProcessId) -> bool:
    """Return whether this process still runs: a later one with its pid does not count."""
    return process_id(process.pid) == process


def end_processes(
    processes: Iterable[ProcessId], *, ask: signal.Signals = signal.SIGTERM, wait_ms_max: int = 10_000
) -> int:
    """Ask the processes to end, all at once, and kill those that have not in time; return how many were killed.

    Returns once all have ended. They need not be children of this process.
    """
    asked = [process for process in processes if _send(process, ask)]
    deadline = time.monotonic() + wait_ms_max / 1000
    late = [process for process in asked if not _wait_for_end(process, deadline)]
    for process in late:
        while _send(process, signal.SIGKILL):  # the kernel may still be working for it
            _wait_for_end(process, time.monotonic() + 1)
    return len(late)


def _send(process: ProcessId, number: signal.Signals) -> bool:
    if not is_alive(process):
        return False
    try:
        os.kill(process.pid, number)
    except ProcessLookupError:
        return False
    return True


def _wait_for_end(process: ProcessId, deadline_s: float) -> bool:
    while is_alive(process):
        if time.monotonic() >= deadline_s:
            return False
        time.sleep(0.01)
    return True


def _from_proc(pid: int) -> ProcessId | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    if fields[_STATE_FIELD] in {"Z", "X"}:
        return None
    return ProcessId(pid, int(fields[_START_TIME_FIELD]), boot)
