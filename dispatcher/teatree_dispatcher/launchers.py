"""Launchers: they start managers and find which ones run, on this host or wherever an implementation puts them."""

from __future__ import annotations

import abc
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from attrs import frozen
from typing_extensions import override

from teatree.contracts.environment import connection_environ
from teatree.contracts.errors import Code, RetryError
from teatree.contracts.exit_reason import ExitReason, read_reason
from teatree.contracts.process import ALLOCATOR_ENVIRON, read_process
from teatree.contracts.settings import Settings
from teatree.storage.model_folder import ModelFolder, model_folder
from teatree_dispatcher.spare import SpareManager

LOG_BYTES_MAX = 10_000_000
"""Bytes of a manager's log beyond which the next manager begins a new one; one old one is kept."""


@frozen
class ManagerExit:
    """A manager that has ended."""

    model: str
    code: int
    """As `subprocess` returns it: negative for a signal."""
    reason: ExitReason | None = None
    """The reason that it wrote, if it could."""


class Launcher(abc.ABC):
    """Starts managers that outlive it. Several launchers may serve the same models: managers exclude each other."""

    @abc.abstractmethod
    def launch(self, model: str) -> None:
        """Start a manager and return at once, even if one runs: the new one finds whether that one hangs.

        Raises `RetryError` if that is not possible now.
        """

    @abc.abstractmethod
    def prepare(self) -> None:
        """Make the next launch quick, if that is possible; called in every round of the dispatcher."""

    @abc.abstractmethod
    def close(self) -> None:
        """End what was prepared; managers keep running."""

    @abc.abstractmethod
    def is_served(self, model: str) -> bool:
        """Return whether a manager runs, started by this launcher or not."""

    @abc.abstractmethod
    def exits(self) -> list[ManagerExit]:
        """Return the managers of this launcher that have ended since the last call."""

    @abc.abstractmethod
    def served(self) -> set[str]:
        """Return the models whose manager runs, started by this launcher or not."""

    @abc.abstractmethod
    def dismiss(self, model: str) -> None:
        """Ask a model's manager to finish its work and end, if one runs on this host."""

    @abc.abstractmethod
    def unfinished(self) -> set[str]:
        """Return the models without a manager whose last one ended before it had published all outcomes."""

    @abc.abstractmethod
    def fingerprint(self, model: str) -> str:
        """Return a text that changes when the model's files are changed by an operator."""


class LocalLauncher(Launcher):
    """Managers as processes on this host, each in its own session; the lock on a model's folder shows that one runs."""

    def __init__(self, settings: Settings, environ: Mapping[str, str]) -> None:
        """`environ` and the connections of `settings` are passed on, never as arguments, which other users can read."""
        self._data = settings.data
        self._environ = {**ALLOCATOR_ENVIRON, **environ, **connection_environ(settings)}
        self._spare = SpareManager(self._environ)
        self._children: list[tuple[str, subprocess.Popen[bytes]]] = []

    @override
    def launch(self, model: str) -> None:
        folder = model_folder(self._data, model)
        try:
            folder.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            _rotate(folder.log)
            child = self._spare.take(model, folder.log) or self._start(model, folder.log)
        except OSError as e:
            raise RetryError(
                Code.UNAVAILABLE, f"The manager of {model} cannot be started: {e.strerror}.", where=str(folder.root)
            ) from e
        self._children.append((model, child))
        self._spare.prepare()

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

    @override
    def prepare(self) -> None:
        self._spare.prepare()

    @override
    def close(self) -> None:
        self._spare.close()

    @override
    def is_served(self, model: str) -> bool:
        if model in self._living_children():
            return True
        return _is_held(model_folder(self._data, model))

    @override
    def exits(self) -> list[ManagerExit]:
        ended = [
            ManagerExit(model, child.returncode, read_reason(model_folder(self._data, model).last_exit, child.pid))
            for model, child in self._children
            if child.poll() is not None
        ]
        self._children = [(model, child) for model, child in self._children if child.returncode is None]
        return ended

    @override
    def served(self) -> set[str]:
        folders = {lock.parent.name for lock in self._data.glob("*/manager.lock")}
        return self._living_children() | {model for model in folders if self.is_served(model)}

    @override
    def dismiss(self, model: str) -> None:
        process = read_process(model_folder(self._data, model).process)
        if process is not None:
            os.kill(process.pid, signal.SIGTERM)

    @override
    def unfinished(self) -> set[str]:
        left = {path.parent.name for path in self._data.glob("*/manager.json") if read_process(path) is None}
        return {model for model in left if not self.is_served(model)}

    @override
    def fingerprint(self, model: str) -> str:
        folder = model_folder(self._data, model)
        return " ".join(
            str(_changed_ns(path)) for path in (folder.root, folder.read_write, *_entries(folder.read_write))
        )

    def _living_children(self) -> set[str]:
        return {model for model, child in self._children if child.poll() is None}


def _is_held(folder: ModelFolder) -> bool:
    """Return whether a manager holds the folder's lock.

    The process file is read first: even a short try of the lock could keep out a manager that starts now.
    """
    if read_process(folder.process) is not None:
        return True
    try:
        descriptor = os.open(folder.lock, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _rotate(log: Path) -> None:
    if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
        log.replace(log.with_suffix(".log.1"))


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _changed_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
