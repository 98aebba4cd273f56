"""A test that hangs or takes too much memory fails with a traceback, and nothing of it keeps running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

TESTS = Path(__file__).parents[1]
ENVIRON = {
    **{name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]),
}
SUITE = """
import os, signal, subprocess, sys, time
import hang_hooks
import pytest

hang_hooks.HANG_MARGIN_S = 0.5

def test_that_fails():
    assert 1 == 2

@pytest.mark.timeout(1)
def test_that_hangs(tmp_path):
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])  # as if this were code in C
    server = [sys.executable, "-c", "import time; time.sleep(60)"]
    print(subprocess.Popen(server, env={"HOME": str(tmp_path)}, start_new_session=True).pid, file=open("pid", "w"))
    time.sleep(60)

def test_that_passes():
    pass
"""
HUNGRY = """
import faulthandler, sys, time
from pathlib import Path
from process_monitor import start_monitor

def take_memory():
    taken = bytearray(600_000_000)
    time.sleep(60)

faulthandler.enable()
start_monitor(Path.cwd(), 2, 300_000_000)
take_memory()
"""


def test_a_hang_fails_one_test(tmp_path: Path) -> None:
    """Its process ends with a traceback, another runs the other tests, and its server ends. Failures come at once."""
    (tmp_path / "test_suite.py").write_text(SUITE)
    plugins = ["-pxdist", "-ppytest_timeout", "-phang_hooks"]
    command = [
        sys.executable,
        "-m",
        "pytest",
        *plugins,
        "-n1",
        "--dist=worksteal",
        "--timeout=30",
        f"--basetemp={tmp_path / 'base'}",
    ]
    done = subprocess.run(
        command, cwd=tmp_path, env=ENVIRON, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60
    )
    output = done.stdout.decode()
    assert done.returncode == 1, output
    assert output.index("assert 1 == 2") < output.index("Timeout (0:00:01"), output
    assert "in test_that_hangs" in output
    assert "crashed while running 'test_suite.py::test_that_hangs'" in output
    assert "2 failed, 1 passed" in output
    _wait_for_end(int((tmp_path / "pid").read_text()))


def test_too_much_memory_ends_the_process(tmp_path: Path) -> None:
    """A process that takes more memory than it may ends with the traceback of the place where it does."""
    command = [sys.executable, "-c", HUNGRY]
    done = subprocess.run(command, cwd=tmp_path, env=ENVIRON, check=False, capture_output=True, timeout=60)
    assert done.returncode == -signal.SIGABRT, done
    assert b"more than 300,000,000 bytes of memory" in done.stderr
    assert b"in take_memory" in done.stderr


def _wait_for_end(pid: int) -> None:
    deadline = time.monotonic() + 30
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)
