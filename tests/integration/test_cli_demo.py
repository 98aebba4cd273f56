"""The demo: the promises, shown to a new user."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

COMMAND = (sys.executable, "-m", "teatree.cli.main", "demo")


def processes_of(folder: Path) -> list[str]:
    """Return the command lines of live processes that have to do with a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            about = [*process.cmdline(), process.environ().get("TEATREE_DATA", ""), process.cwd()]
        except psutil.Error:
            continue
        if process.pid != os.getpid() and any(str(folder) in part for part in about):
            found.append(" ".join(about))
    return found


def environment() -> dict[str, str]:
    """Return the environment without addresses of other stacks."""
    return {name: value for name, value in os.environ.items() if not name.startswith("TEATREE_")}


def test_every_number_agrees_though_the_manager_was_killed(tmp_path: Path) -> None:
    """Every way to read finds all that was sent; no read failed; no process is left."""
    command = [*COMMAND, "--json", "--data", str(tmp_path / "demo")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False, env=environment())
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["ok"]
    assert [check for check in report["checks"] if not check["agrees"]] == []
    assert report["killed"]["pid"] > 0
    assert report["reader"]["failed"] == report["reader"]["halves"] == 0
    assert not processes_of(tmp_path)


@pytest.mark.parametrize("after_s", [pytest.param(1.0, marks=pytest.mark.slow), 5.0])
def test_ctrl_c_stops_all_of_it(tmp_path: Path, after_s: float) -> None:
    """At any moment: exit code 130, one line at most, and no process is left."""
    command = [*COMMAND, "--data", str(tmp_path / "demo")]
    demo = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
    time.sleep(after_s)
    demo.send_signal(signal.SIGINT)
    _, err = demo.communicate(timeout=60)
    assert demo.returncode == 130, err
    assert "Traceback" not in err
    assert not processes_of(tmp_path)
