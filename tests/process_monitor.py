"""The monitor of a pytest process: ends it when it takes too much memory, and then what it has left running.

It is another process, since code in C can stop all threads of one. Servers of fixtures run in separate sessions:
they do not end with the pytest process if that crashes, is killed, or is ended by the timer of `conftest`.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

from teatree.contracts.process import ProcessId, end_processes, own_process, process_id

MEMORY_BYTES_MAX = 4_000_000_000
"""Private memory of a pytest process; its tests need less than a quarter."""
MARK = "TESTS_FOLDER"
"""The variable that a test's processes inherit. Servers have a clean environment, with a folder below this one."""
_LOOK_S = 0.2
_ABORT_MS_MAX = 10_000
"""Milliseconds in which the tracebacks are printed."""
_ORPHAN_MS_MAX = 5_000
"""Milliseconds in which a worker without its controller ends."""


def start_monitor(folder: Path, output: int, memory_bytes_max: int = MEMORY_BYTES_MAX) -> None:
    """Start the monitor of this process, which prints to `output`; the tests' files are below `folder`."""
    environ = dict(os.environ)
    os.environ[MARK] = str(folder)
    arguments = [str(number) for number in (os.getpid(), os.getppid(), memory_bytes_max)]
    command = [sys.executable, __file__, *arguments, str(folder)]
    subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, stdout=output, stderr=output, process_group=0)


def main(pid: int, controller: int, memory_bytes_max: int, folder: str) -> None:
    """Monitor the process `pid` until it has ended, then end the processes that it has left."""
    own = own_process()
    while os.getppid() == pid:
        with suppress(psutil.Error):
            _look(psutil.Process(pid), controller, memory_bytes_max)
        time.sleep(_LOOK_S)
    end_processes([one for one in _started_in(folder) if one.started >= own.started], ask=signal.SIGKILL)


def _look(process: psutil.Process, controller: int, memory_bytes_max: int) -> None:
    identity = process_id(process.pid)
    if identity is None:
        return
    memory = process.memory_info()
    if memory.rss - memory.shared > memory_bytes_max:
        print(f"\nThe tests took more than {memory_bytes_max:,} bytes of memory.", flush=True)
        end_processes([identity], ask=signal.SIGABRT, wait_ms_max=_ABORT_MS_MAX)  # prints all tracebacks
    elif "PYTEST_XDIST_WORKER" in os.environ and process.ppid() != controller:
        end_processes([identity], wait_ms_max=_ORPHAN_MS_MAX)


def _started_in(folder: str) -> list[ProcessId]:
    """Return the processes whose environment names the folder, or a path below it."""
    mark = re.compile(rb"[=:/]" + re.escape(os.fsencode(folder)) + rb"[/\0]")
    found: list[ProcessId | None] = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # it ended, or belongs to another user
            if mark.search(path.read_bytes() + b"\0"):
                found.append(process_id(int(path.parent.name)))
    return [process for process in found if process is not None]


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
