"""The managers of one data folder on this host: they run in separate sessions and outlive the dispatcher."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from teatree.contracts.process import ProcessId, end_processes, read_process
from teatree.embedded.server import find_processes

if TYPE_CHECKING:
    import psutil

MANAGER_MODULE = "teatree_manager"
MANAGER_FILE = "manager.json"
"""Written by a manager into its model's folder: `pid`, `started`, `boot`."""


def find_managers(data: Path) -> list[ProcessId]:
    """Return the live managers of the data folder, including those that have not written their file yet."""
    written = [process for file in data.glob(f"*/{MANAGER_FILE}") if (process := read_process(file))]
    return list({*written, *find_processes(lambda process: is_ours(process, MANAGER_MODULE, data))})


def end_managers(data: Path, wait_ms_max: int) -> int:
    """Ask all managers of the data folder to drain and exit, kill those that do not in time; return how many."""
    managers = find_managers(data)
    end_processes(managers, wait_ms_max=wait_ms_max)
    return len(managers)


def is_ours(process: psutil.Process, module: str, data: Path) -> bool:
    """Return whether a process runs this module for the data folder."""
    arguments = process.cmdline()
    started = any(first == "-m" and second == module for first, second in pairwise(arguments))
    return started and process.environ().get("TEATREE_DATA") == str(data)
