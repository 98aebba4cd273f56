"""Whether the holder of a lease is dead, as another process can prove it."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from attrs import evolve

from teatree.storage.catalog.lease import is_alive, process_of, this_process


def test_this_process_is_alive() -> None:
    """A holder made here names this process; two holders have different ids."""
    holder = this_process("here")
    assert holder.pid == os.getpid()
    assert is_alive(holder, "here") is True
    assert this_process("here").id != holder.id
    assert process_of(holder).pid == holder.pid


def test_a_holder_on_another_host_or_boot_is_unknown() -> None:
    """A pid identifies no process of another machine or before the last boot."""
    holder = this_process("here")
    assert is_alive(holder, "there") is None
    assert is_alive(evolve(holder, boot_id="another"), "here") is None


def test_a_pid_used_again_is_another_process() -> None:
    """The start time distinguishes a process from a later one with its pid."""
    holder = this_process("here")
    assert is_alive(evolve(holder, started=holder.started - 1), "here") is False


def test_a_zombie_is_dead() -> None:
    """A killed process holds nothing, also before its parent waits for it."""
    script = (
        "from teatree.storage.catalog.lease import this_process as t; print(t('here').started, flush=True); input()"
    )
    child = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    started = int(child.stdout.readline())
    holder = evolve(this_process("here"), pid=child.pid, started=started)
    assert is_alive(holder, "here") is True
    child.kill()
    while is_alive(holder, "here"):
        time.sleep(0.01)
    assert os.path.exists(f"/proc/{child.pid}")  # noqa: PTH110  # the zombie, until we wait for it
    child.communicate()
    assert is_alive(holder, "here") is False
