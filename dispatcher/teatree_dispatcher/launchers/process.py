"""The launcher of managers as processes on this host."""

from __future__ import annotations

import asyncio
import builtins
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from attrs import frozen
from typing_extensions import override

from teatree.contracts.clock import SYSTEM_CLOCK, Clock
from teatree.contracts.environment import connection_environ
from teatree.contracts.errors import Code, RetryError
from teatree.contracts.exit_reason import read_reason
from teatree.contracts.names import new_id
from teatree.contracts.process import ALLOCATOR_ENVIRON, read_process
from teatree.contracts.settings import Settings
from teatree.storage.model_folder import ModelFolder, model_folder
from teatree_dispatcher.launchers.base import Launcher, ManagerExit, ManagerRun
from teatree_dispatcher.launchers.child_end import ChildEnd
from teatree_dispatcher.launchers.spare import SpareManager

LOG_BYTES_MAX = 10_000_000
"""Bytes of a manager's log beyond which the next manager begins a new one; one old one is kept."""


@frozen
class _Child:
    """A manager that this launcher has started."""

    model: str
    id: str
    process: subprocess.Popen[bytes]
    end: ChildEnd[str]


class ProcessLauncher(Launcher):
    """Managers as processes, each in its own session; the lock on a model's folder shows that one runs."""

    def __init__(self, settings: Settings, environ: Mapping[str, str], clock: Clock = SYSTEM_CLOCK) -> None:
        """`environ` and the connections of `settings` are passed on, never as arguments, which other users can read."""
        self._data = settings.data
        self._environ = {**ALLOCATOR_ENVIRON, **environ, **connection_environ(settings)}
        self._spare = SpareManager(self._environ, clock)
        self._children: dict[str, _Child] = {}
        self._watchers: list[asyncio.Queue[ManagerRun | None]] = []

    @override
    async def launch(self, model: str) -> ManagerRun:
        folder = model_folder(self._data, model)
        try:
            folder.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            rotate(folder.log)
            process = self._spare.take(model, folder.log) or self._start(model, folder.log)
        except OSError as e:
            raise RetryError(
                Code.UNAVAILABLE, f"The manager of {model} cannot be started: {e.strerror}.", where=str(folder.root)
            ) from e
        child = self._watched(model, process)
        self._spare.prepare()
        run = self._run(child)
        self._report(run)
        return run

    def _start(self, model: str, log_path: Path) -> subprocess.Popen[bytes]:
        with log_path.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "teatree_manager", model],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environ,
                start_new_session=True,
            )

    def _watched(self, model: str, process: subprocess.Popen[bytes]) -> _Child:
        run_id = f"{process.pid}-{new_id()}"
        child = _Child(model, run_id, process, ChildEnd(process, self._ended, run_id))
        self._children[run_id] = child
        return child

    def _ended(self, run_id: str) -> None:
        child = self._children.get(run_id)
        if child is not None:  # else it was released meanwhile
            self._report(self._run(child))

    def _run(self, child: _Child) -> ManagerRun:
        code = child.process.poll()
        if code is None:
            return ManagerRun(child.model, child.id)
        reason = read_reason(model_folder(self._data, child.model).last_exit, child.process.pid)
        return ManagerRun(child.model, child.id, ManagerExit(code, reason))

    def _report(self, run: ManagerRun) -> None:
        for watcher in self._watchers:
            watcher.put_nowait(run)

    @override
    async def list(self) -> Sequence[ManagerRun]:
        children = [self._run(child) for child in self._children.values()]
        running = {run.model for run in children if run.exit is None}
        return [*children, *self._others(running)]

    def _others(self, known: set[str]) -> builtins.list[ManagerRun]:
        """Return the managers that this launcher has not started, but for those models."""
        models = {lock.parent.name for lock in self._data.glob("*/manager.lock")} - known
        found = (_other(model_folder(self._data, model), model) for model in sorted(models))
        return [run for run in found if run is not None]

    @override
    async def find(self, model: str) -> Sequence[ManagerRun]:
        runs = [self._run(child) for child in self._children.values() if child.model == model]
        if all(run.exit is not None for run in runs):
            other = _other(model_folder(self._data, model), model)
            runs += [] if other is None else [other]
        return runs

    @override
    async def watch(self) -> AsyncIterator[ManagerRun]:
        reports: asyncio.Queue[ManagerRun | None] = asyncio.Queue()
        self._watchers.append(reports)
        try:
            listed = await self.list()
            for run in listed:
                yield run
            # `list` can find an end before the process is waited for.
            known = {run.id for run in listed if run.exit is not None}
            while (reported := await reports.get()) is not None:
                if reported.id not in known:
                    yield reported
        finally:
            self._watchers.remove(reports)

    @override
    async def release(self, run: ManagerRun) -> None:
        child = self._children.pop(run.id, None)
        if child is not None:
            child.end.stop()

    @override
    async def dismiss(self, model: str) -> None:
        process = read_process(model_folder(self._data, model).process)
        if process is not None:
            with suppress(ProcessLookupError):  # it ended just now
                os.kill(process.pid, signal.SIGTERM)

    @override
    async def unfinished(self) -> Sequence[str]:
        running = {child.model for child in self._children.values() if child.process.poll() is None}
        left = {path.parent.name for path in self._data.glob("*/manager.json") if read_process(path) is None}
        return [model for model in sorted(left - running) if _other(model_folder(self._data, model), model) is None]

    @override
    async def fingerprint(self, model: str) -> str:
        folder = model_folder(self._data, model)
        return " ".join(
            str(_changed_ns(path)) for path in (folder.root, folder.read_write, *_entries(folder.read_write))
        )

    @override
    async def prepare(self) -> None:
        self._spare.prepare()

    @override
    async def close(self) -> None:
        for child in self._children.values():
            child.end.stop()
        for watcher in self._watchers:
            watcher.put_nowait(None)
        self._spare.close()


def _other(folder: ModelFolder, model: str) -> ManagerRun | None:
    """Return the manager that holds the folder's lock; None if none does.

    The process file is read first: even a short try of the lock could keep out a manager that starts now.
    """
    process = read_process(folder.process)
    if process is not None:
        return ManagerRun(model, f"{process.pid}-{process.started}")
    try:
        descriptor = os.open(folder.lock, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return ManagerRun(model, f"{model}-starting")
    finally:
        os.close(descriptor)
    return None


def rotate(log: Path) -> None:
    """Begin a new log if this one is large."""
    if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
        log.replace(log.with_suffix(".log.1"))


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _changed_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
