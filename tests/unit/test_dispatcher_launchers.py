"""Finding from a model's folder whether a manager runs, and starting managers."""

from __future__ import annotations

import fcntl
import os
import subprocess
from pathlib import Path
from typing import Any

import attrs
import pytest

from teatree.contracts.codec import dump_json
from teatree.contracts.errors import RetryError
from teatree.contracts.process import own_process
from teatree.contracts.settings import Settings
from teatree.storage.model_folder import ModelFolder, model_folder
from teatree_dispatcher.launchers import LOG_BYTES_MAX, LocalLauncher, _rotate
from teatree_dispatcher.spare import SpareManager


@pytest.fixture
def launcher(tmp_path: Path) -> LocalLauncher:
    """Return a launcher of an empty data folder."""
    return LocalLauncher(Settings(data=tmp_path), {})


@pytest.fixture
def folder(tmp_path: Path) -> ModelFolder:
    """Return the folder of a model."""
    made = model_folder(tmp_path, "sales")
    made.root.mkdir()
    return made


def test_no_manager(launcher: LocalLauncher, folder: ModelFolder) -> None:
    """No folder, no lock file, or a lock that no process holds: no manager."""
    assert not launcher.is_served("other")
    assert not launcher.is_served("sales")
    folder.lock.touch()
    assert not launcher.is_served("sales")
    assert launcher.served() == set()


def test_lock(launcher: LocalLauncher, folder: ModelFolder) -> None:
    """A held lock shows a manager, started by this launcher or not; the check does not take it."""
    descriptor = os.open(folder.lock, os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    assert launcher.is_served("sales")
    assert launcher.served() == {"sales"}
    os.close(descriptor)
    assert not launcher.is_served("sales")
    descriptor = os.open(folder.lock, os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(descriptor)


def test_process_file(launcher: LocalLauncher, folder: ModelFolder) -> None:
    """The manager's process file counts while that very process runs."""
    me = own_process()
    folder.process.write_bytes(dump_json(attrs.asdict(me)))
    assert launcher.is_served("sales")
    folder.process.write_bytes(dump_json({**attrs.asdict(me), "started": me.started + 1}))
    assert not launcher.is_served("sales")


def test_fingerprint(launcher: LocalLauncher, folder: ModelFolder) -> None:
    """A model's fingerprint changes when its files are changed, and only then."""
    before = launcher.fingerprint("sales")
    assert launcher.fingerprint("sales") == before
    folder.read_write.mkdir()
    assert launcher.fingerprint("sales") != before


def test_cannot_start(tmp_path: Path) -> None:
    """A folder that cannot be made is a retryable error that names its path."""
    blocked = tmp_path / "file"
    blocked.touch()
    with pytest.raises(RetryError) as e:
        LocalLauncher(Settings(data=blocked), {}).launch("sales")
    assert str(blocked) in str(e.value)


def test_a_spare_that_dies(monkeypatch: pytest.MonkeyPatch) -> None:
    """A spare that crashes is not replaced at once, one that was taken is."""
    started: list[subprocess.Popen[bytes]] = []
    begin = subprocess.Popen

    def popen(*args: Any, **options: Any) -> subprocess.Popen[bytes]:
        started.append(begin(*args, **options))
        return started[-1]

    monkeypatch.setattr("teatree_dispatcher.spare.subprocess.Popen", popen)
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


def test_log_is_bounded(tmp_path: Path) -> None:
    """A manager's log is rotated when it has grown, and one old log is kept."""
    log = tmp_path / "manager.log"
    _rotate(log)
    log.write_bytes(b"x" * (LOG_BYTES_MAX + 1))
    _rotate(log)
    assert not log.exists()
    assert (tmp_path / "manager.log.1").stat().st_size == LOG_BYTES_MAX + 1
