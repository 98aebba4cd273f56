"""The launcher of processes beyond its suite: what it finds in a model's folder, its spare, and its managers' logs."""

from __future__ import annotations

import asyncio
import fcntl
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest

from teatree.contracts.errors import RetryError
from teatree.contracts.formats.codec import dump_json
from teatree.contracts.process import own_process
from teatree.contracts.settings import Settings
from teatree.storage.model_folder import ModelFolder, model_folder
from teatree_dispatcher.launchers.child_end import ChildEnd
from teatree_dispatcher.launchers.process import LOG_BYTES_MAX, ProcessLauncher, rotate
from teatree_dispatcher.launchers.spare import SpareManager


@pytest.fixture
def launcher(tmp_path: Path) -> ProcessLauncher:
    """Return a launcher of an empty data folder."""
    return ProcessLauncher(Settings(data=tmp_path), {})


@pytest.fixture
def folder(tmp_path: Path) -> ModelFolder:
    """Return the folder of a model."""
    made = model_folder(tmp_path, "sales")
    made.root.mkdir()
    return made


async def running(launcher: ProcessLauncher) -> list[str]:
    """Return the models whose manager runs, by all that a launcher answers."""
    listed = [run.model for run in await launcher.list() if run.exit is None]
    for model in ("sales", "other"):
        assert [run.model for run in await launcher.find(model)] == [m for m in listed if m == model]
    return listed


async def test_no_manager(launcher: ProcessLauncher, folder: ModelFolder) -> None:
    """No folder, no lock file, or a lock that no process holds: no manager."""
    assert await running(launcher) == []
    folder.lock.touch()
    assert await running(launcher) == []


async def test_lock(launcher: ProcessLauncher, folder: ModelFolder) -> None:
    """A held lock shows a manager, started by this launcher or not; the check does not take it."""
    descriptor = os.open(folder.lock, os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    assert await running(launcher) == ["sales"]
    os.close(descriptor)
    assert await running(launcher) == []
    descriptor = os.open(folder.lock, os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(descriptor)


async def test_process_file(launcher: ProcessLauncher, folder: ModelFolder) -> None:
    """The manager's process file counts while that very process runs."""
    me = own_process()
    folder.lock.touch()
    folder.process.write_bytes(dump_json(attrs.asdict(me)))
    assert await running(launcher) == ["sales"]
    assert await launcher.unfinished() == []
    folder.process.write_bytes(dump_json({**attrs.asdict(me), "started": me.started + 1}))
    assert await running(launcher) == []
    assert await launcher.unfinished() == ["sales"]


async def test_cannot_start(tmp_path: Path) -> None:
    """A folder that cannot be made is a retryable error that names its path."""
    blocked = tmp_path / "file"
    blocked.touch()
    with pytest.raises(RetryError) as e:
        await ProcessLauncher(Settings(data=blocked), {}).launch("sales")
    assert str(blocked) in str(e.value)


def started_child() -> subprocess.Popen[bytes]:
    """Start a process that does not end."""
    return subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)


@pytest.mark.parametrize("has_descriptors", [True, False])
async def test_the_end_of_a_child(monkeypatch: pytest.MonkeyPatch, has_descriptors: bool) -> None:  # noqa: FBT001
    """The end of a child is noticed with and without the kernel's descriptors of processes, unless it is stopped."""
    if not has_descriptors:
        monkeypatch.delattr(os, "pidfd_open")
    children = [started_child() for _ in range(2)]
    noticed: asyncio.Queue[int] = asyncio.Queue()
    ends = [ChildEnd(child, noticed.put_nowait, number) for number, child in enumerate(children)]
    ends[0].stop()
    for child in children:
        child.kill()
    assert await asyncio.wait_for(noticed.get(), 10) == 1
    children[0].wait()
    await asyncio.sleep(0.05)
    assert noticed.empty()
    assert [child.poll() for child in children] == [-9, -9]
    for child in children:
        assert child.stdin is not None
        child.stdin.close()


def test_a_spare_that_dies(monkeypatch: pytest.MonkeyPatch) -> None:
    """A spare that crashes is not replaced at once, one that was taken is."""
    started: list[subprocess.Popen[bytes]] = []
    begin = subprocess.Popen

    def popen(*args: Any, **options: Any) -> subprocess.Popen[bytes]:
        started.append(begin(*args, **options))
        return started[-1]

    monkeypatch.setattr("teatree_dispatcher.launchers.spare.subprocess.Popen", popen)
    spare = SpareManager({"PYTHONHOME": "/nonexistent"})
    spare.prepare()
    started[0].wait()
    for _ in range(100):
        spare.prepare()
    assert len(started) == 1
    assert spare.take("sales", Path("/dev/null")) is None
    spare.prepare()
    assert len(started) == 2
    spare.close()


def test_a_spare_from_before_an_installation_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that is installed in place adds a folder to Python's path, which that process does not know."""
    begin = subprocess.Popen
    packages = tmp_path / "site-packages"
    packages.mkdir()
    monkeypatch.syspath_prepend(packages)
    monkeypatch.setattr(
        "teatree_dispatcher.launchers.spare.subprocess.Popen", lambda _, **options: begin(["cat"], **options)
    )
    spare = SpareManager({"PATH": os.environ["PATH"]})
    spare.prepare()
    taken = spare.take("sales", Path("/dev/null"))
    assert taken is not None
    taken.wait()
    spare.prepare()
    (packages / "__editable__.acme.pth").write_text("/somewhere\n")
    assert spare.take("sales", Path("/dev/null")) is None
    spare.close()


def test_log_is_bounded(tmp_path: Path) -> None:
    """A manager's log is rotated when it has grown, and one old log is kept."""
    log = tmp_path / "manager.log"
    rotate(log)
    log.write_bytes(b"x" * (LOG_BYTES_MAX + 1))
    rotate(log)
    assert not log.exists()
    assert (tmp_path / "manager.log.1").stat().st_size == LOG_BYTES_MAX + 1
