"""Places for the launchers' suite: programs in place of managers, and the fake launcher of the dispatcher's tests."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from typing_extensions import override

from dispatcher_world import FakeLauncher
from teatree.contracts.exit_reason import ExitReason
from teatree.contracts.formats.codec import dump_json
from teatree.contracts.process import end_processes, read_process
from teatree.contracts.settings import Settings
from teatree.storage.model_folder import model_folder
from teatree.testing.launchers import LauncherPlace
from teatree_dispatcher.launchers.base import Launcher
from teatree_dispatcher.launchers.process import ProcessLauncher

_PROGRAM = """
import fcntl, json, os, signal, sys, time
from pathlib import Path

signal.signal(signal.SIGTERM, lambda *_: (folder / "end.json").write_text('{"code": 0, "reason": ""}'))
model = sys.argv[1] if len(sys.argv) > 1 else json.loads(sys.stdin.readline() or '{"model": ""}')["model"]
if not model:
    sys.exit(0)
folder = Path(os.environ["TEATREE_DATA"]) / model
lock = os.open(folder / "manager.lock", os.O_RDWR | os.O_CREAT)
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    sys.exit(75)
stat = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
me = {"pid": os.getpid(), "started": int(stat[19]), "boot": Path("/proc/sys/kernel/random/boot_id").read_text().strip()}
(folder / "manager.json").write_text(json.dumps(me))
while not (folder / "end.json").exists():
    time.sleep(0.005)
order = json.loads((folder / "end.json").read_text())
(folder / "end.json").unlink()
if order["reason"]:
    reason = {"pid": os.getpid(), "code": "internal", "message": order["reason"], "is_passing": False}
    (folder / "exit.json").write_text(json.dumps(reason))
if order["code"] < 0:
    os.kill(os.getpid(), -order["code"])
(folder / "manager.json").unlink()
os._exit(order["code"])
"""
"""Does with the files of its model's folder what a manager does, until `end.json` names its exit code."""


class ProcessPlace(LauncherPlace):
    """A data folder of this host, with that program for managers."""

    def __init__(self, folder: Path, loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None) -> None:
        self.loop_factory = loop_factory
        self._data = folder / "data"
        package = folder / "teatree_manager"
        package.mkdir()
        (package / "__init__.py").touch()
        (package / "__main__.py").write_text(_PROGRAM)
        self._environ = {"PYTHONPATH": str(folder), "PATH": os.environ["PATH"]}

    @override
    def open(self) -> Launcher:
        return ProcessLauncher(Settings(data=self._data), self._environ)

    @override
    async def end(self, model: str, code: int, reason: str = "") -> None:
        folder = model_folder(self._data, model).root
        order = folder / "order.tmp"
        order.write_bytes(dump_json({"code": code, "reason": reason}))
        order.replace(folder / "end.json")

    @override
    async def change(self, model: str) -> None:
        model_folder(self._data, model).read_write.mkdir()

    def close(self) -> None:
        """End all that still runs."""
        files = self._data.glob("*/manager.json")
        end_processes([process for process in map(read_process, files) if process is not None])


class FakePlace(LauncherPlace):
    """The launcher of the dispatcher's tests: its managers are names in a set."""

    def __init__(self) -> None:
        self._alive: set[str] = set()
        self._launcher = FakeLauncher(self._alive)

    @override
    def open(self) -> Launcher:
        self._launcher = FakeLauncher(self._alive)
        return self._launcher

    @override
    async def end(self, model: str, code: int, reason: str = "") -> None:
        if code < 0:
            self._launcher.crashed.add(model)
        self._launcher.end(model, code, ExitReason(0, "internal", reason) if reason else None)

    @override
    async def change(self, model: str) -> None:
        self._launcher.print += "1"
