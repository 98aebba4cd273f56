"""A spare manager: a process that has loaded its libraries and waits for a model.

Loading them takes longer than taking a model over, so a stopped model answers its first request several times sooner.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from teatree.contracts.clock import SYSTEM_CLOCK, Clock

AFTER_CRASH_MS = 5_000
"""Milliseconds between two spares if the first crashed while it waited: the same cause may well end the next."""


Installed = tuple[tuple[str, int], ...]


def installed() -> Installed:
    """Return the times of change of the folders that packages are installed into."""
    found: list[tuple[str, int]] = []
    for place in (Path(entry) for entry in sys.path if entry.endswith("-packages")):
        with suppress(OSError):  # it need not exist
            found.append((str(place), place.stat().st_mtime_ns))
    return tuple(found)


class SpareManager:
    """At most one waiting process; it ends when its pipe closes, so it never outlives the dispatcher."""

    def __init__(self, environ: Mapping[str, str], clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._environ = dict(environ)
        self._process: subprocess.Popen[bytes] | None = None
        self._not_before_s = 0.0
        self._installed: Installed = ()
        """What was installed when it was started."""

    def prepare(self) -> None:
        """Start a spare if there is none: at once after one was taken, later after one that crashed."""
        is_waiting = self._process is not None and self._process.poll() is None
        if is_waiting or (self._process is not None and self._clock.monotonic() < self._not_before_s):
            return
        self._not_before_s = self._clock.monotonic() + AFTER_CRASH_MS / 1000
        self._installed = installed()
        with suppress(OSError):  # the next launch meets the same error, and reports it
            self._process = subprocess.Popen(
                [sys.executable, "-m", "teatree_manager"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=self._environ,
                start_new_session=True,
            )

    def take(self, model: str, log: Path) -> subprocess.Popen[bytes] | None:
        """Give the spare its model and log file; return it, or None if there is no spare that knows what is installed.

        A package that is installed in place adds a folder to Python's path, which is read when a process starts.
        """
        if self._installed != installed():
            self.close()
        process, self._process = self._process, None
        if process is None or process.stdin is None or process.poll() is not None:
            return None
        try:
            process.stdin.write(json.dumps({"model": model, "log": str(log)}).encode() + b"\n")
            process.stdin.close()
        except BrokenPipeError:
            return None
        return process

    def close(self) -> None:
        """End the spare."""
        process, self._process = self._process, None
        if process is not None and process.stdin is not None:
            process.stdin.close()
            process.wait()
