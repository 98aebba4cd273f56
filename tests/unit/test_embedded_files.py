"""Locks, secrets, ports and identities that the embedded servers keep in files."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from attrs import evolve

from teatree.contracts.environment import read_env_file
from teatree.contracts.errors import RetryError
from teatree.contracts.process import end_processes, is_alive, own_process, process_id, read_process
from teatree.embedded.env_file import remove_block, write_block
from teatree.embedded.folder_lock import FolderLock
from teatree.embedded.ports import is_free, remembered_ports
from teatree.embedded.secret_file import kept_secrets, own_folder, write_private


def test_a_folder_in_use_is_refused_by_name_and_free_after_its_holder(tmp_path: Path) -> None:
    """The error names the process that holds the folder, which is free once that process has ended."""
    first, second = FolderLock(tmp_path / "lock"), FolderLock(tmp_path / "lock")
    first.take()
    with pytest.raises(RetryError, match=str(os.getpid())):
        second.take()
    first.release()
    second.take()
    second.release()


def test_a_killed_holder_holds_nothing(tmp_path: Path) -> None:
    """SIGKILL frees the folder."""
    script = (
        "import os, sys; from pathlib import Path; from teatree.embedded.folder_lock import FolderLock; "
        "FolderLock(Path(sys.argv[1])).take(); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "lock")], check=False)
    lock = FolderLock(tmp_path / "lock")
    lock.take()
    lock.release()


def test_secrets_are_made_once_and_only_their_owner_reads_them(tmp_path: Path) -> None:
    """The same secret at every start, in a file that only its owner can open, also if it had another mode before."""
    path = tmp_path / "secrets.json"
    first = kept_secrets(path, ("a", "b"))
    assert kept_secrets(path, ("b",))["b"] == first["b"]
    assert first["a"] != first["b"]
    assert kept_secrets(path, ("c",)).keys() == {"a", "b", "c"}
    path.chmod(0o644)
    write_private(path, "{}")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_ports_are_kept_and_their_twins_are_free(tmp_path: Path) -> None:
    """A server is started again at the address that its clients use."""
    path = tmp_path / "ports.json"
    ports = remembered_ports(path, ("one", "two"), twin_offset=10_000)
    assert len(set(ports.values())) == 2
    assert all(is_free(port) and is_free(port + 10_000) for port in ports.values())
    assert remembered_ports(path, ("one", "two"), twin_offset=10_000) == ports


def test_a_process_is_identified_by_more_than_its_pid() -> None:
    """A later process with the same pid, or the same pid after a reboot, is another one."""
    own = own_process()
    assert is_alive(own)
    assert not is_alive(evolve(own, started=own.started + 1))
    assert not is_alive(evolve(own, boot="another"))


def test_an_unreadable_process_file_names_no_process(tmp_path: Path) -> None:
    """A truncated file, or one with other content, counts as missing."""
    for text in ("", '{"pid": 1', '{"pid": 1}', "[]"):
        (tmp_path / "p.json").write_text(text)
        assert read_process(tmp_path / "p.json") is None
    assert read_process(tmp_path / "absent.json") is None


def test_processes_that_ignore_sigterm_are_killed_and_others_are_not() -> None:
    """Ending sends SIGTERM first, and counts processes that had to be killed, also stopped ones."""
    ignores_sigterm = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
    )
    ends_at_sigterm = "import time; print(1, flush=True); time.sleep(60)"
    exits_at_sigterm = f"import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit()); {ends_at_sigterm}"
    started = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
        for script in (ignores_sigterm, ends_at_sigterm, exits_at_sigterm)
    ]
    for process in started:
        assert process.stdout is not None
        process.stdout.readline()
    started[2].send_signal(signal.SIGSTOP)
    identities = [identity for process in started if (identity := process_id(process.pid))]
    assert end_processes(identities, wait_ms_max=300) == 2
    assert [process.wait(5) for process in started] == [-signal.SIGKILL, -signal.SIGTERM, -signal.SIGKILL]
    for process in started:
        assert process.stdout is not None
        process.stdout.close()


def test_lines_of_the_users_own_stay_in_teatree_env(tmp_path: Path) -> None:
    """`up` writes a block that it replaces and removes; the user's other lines stay."""
    path = tmp_path / "teatree.env"
    write_block(path, {"TEATREE_NATS_URL": "nats://one"})
    assert read_env_file(path) == {"TEATREE_NATS_URL": "nats://one"}
    remove_block(path)
    assert not path.exists()
    remove_block(path)
    own_lines = b"# mine\n\nTEATREE_LIMITS_THREADS=1\nODD=\xff\n"
    path.write_bytes(own_lines)
    for url in ("nats://one", "nats://two"):  # the second after a run that was killed
        write_block(path, {"TEATREE_NATS_URL": url})
        assert read_env_file(path)["TEATREE_NATS_URL"] == url
        assert path.read_bytes().startswith(own_lines)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    remove_block(path)
    assert path.read_bytes() == own_lines


def test_a_folder_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    """A new data folder is its owner's alone; the mode of an existing one is not changed."""
    there = tmp_path / "there"
    there.mkdir(mode=0o750)
    assert stat.S_IMODE(own_folder(there).stat().st_mode) == 0o750
    assert stat.S_IMODE(own_folder(tmp_path / "a" / "new").stat().st_mode) == 0o700
