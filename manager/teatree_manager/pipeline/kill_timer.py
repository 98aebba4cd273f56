"""Ends a manager in which a function of an app keeps Python's lock: none of its threads can act then.

A regular expression, or one operation on huge numbers, can run for ever without giving the lock to another thread: the
watchdog's, for example, or the one that renews the lease. So a timer of the kernel's runs while a function does, and a
thread sets it back as long as it can. The handler of its signal is faulthandler's, which needs no lock: it writes down
where each thread is, and then the signal ends the process. What was running is in a file that is mapped into memory, so
that it outlasts the process.
"""

from __future__ import annotations

import faulthandler
import mmap
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import orjson
from attrs import frozen

from teatree.contracts.clock import SYSTEM_CLOCK, Clock
from teatree.contracts.formats.requests import Request
from teatree.functions.app.user_traceback import CodePlace, place_of
from teatree.storage.model_folder import ModelFolder

RECORD_BYTES = 512
"""Size of the file that names what runs; blanks follow the JSON."""
SIGNAL = signal.SIGALRM
LEASE_PART = 0.8
LATE_S_MAX = 3.0
"""Seconds by which the timer can be late on a busy host. One that is later expired while the whole process was paused:
its function may be quick, and counts as one that crashed its manager."""
MARGIN_MS = 1_000
"""Milliseconds for which the watchdog, which has the same reason to end the process, may do it first."""
_FRAME = re.compile(r'^  File "(.*)", line (\d+) in (.*)$', re.MULTILINE)
_RUN = "engine_function.py"
"""The file of the frame below which all are the function's."""


@frozen
class Hung:
    """A request whose function kept Python's lock until the last process was ended."""

    seq: int
    request_id: str
    place: str | None
    """The line of the app's code that it was at."""


class KillTimer:
    """The timer of one process."""

    def __init__(self, folder: ModelFolder, lease_ms: int, clock: Clock = SYSTEM_CLOCK) -> None:
        """Allow a function to keep the lock for most of the time of a lease, which cannot be renewed meanwhile."""
        self._stacks = folder.stacks
        self._running = folder.running
        self._clock = clock
        self._lock_s_max = LEASE_PART * lease_ms / 1000
        self._record: mmap.mmap | None = None
        self._lock = threading.Lock()
        self._running_now: tuple[mmap.mmap, Request, float] | None = None
        """While a function runs: its record, its request, and the seconds to which the timer is set."""

    def hung(self) -> Hung | None:
        """Return what the last process was ended for by its timer; it is forgotten when the next function runs."""
        try:
            stacks, record = self._stacks.read_text("utf-8", "replace"), orjson.loads(self._running.read_bytes())
            is_late = abs(self._stacks.stat().st_mtime - record["due"]) > LATE_S_MAX
            return Hung(record["seq"], record["request_id"], _place(stacks)) if stacks and not is_late else None
        except (OSError, ValueError, KeyError, TypeError):
            return None  # there was no such process, or the disk took no record

    def _open(self) -> mmap.mmap:
        self._running.write_bytes(b" " * RECORD_BYTES)
        with self._running.open("r+b") as file:
            record = mmap.mmap(file.fileno(), RECORD_BYTES)
        faulthandler.register(SIGNAL, file=self._stacks.open("wb"), all_threads=True, chain=True)
        threading.Thread(target=self._keep_setting, name="kill-timer", daemon=True).start()
        return record

    @contextmanager
    def during(self, request: Request, limit_ms: int) -> Iterator[None]:
        """Run the function of a request in the block: end this process if the lock is kept for too long meanwhile.

        Raises OSError if the disk has no room for the record.
        """
        if self._record is None:
            self._record = self._open()
        with self._lock:
            self._set(self._record, request, min(self._lock_s_max, (limit_ms + MARGIN_MS) / 1000))
        try:
            yield
        finally:
            with self._lock:
                self._running_now = None
                signal.setitimer(signal.ITIMER_REAL, 0)

    def _set(self, record: mmap.mmap, request: Request, seconds: float) -> None:
        self._running_now = record, request, seconds
        found = {"seq": request.seq, "request_id": request.request_id, "due": time.time() + seconds}
        record[:] = orjson.dumps(found).ljust(RECORD_BYTES)
        signal.setitimer(signal.ITIMER_REAL, seconds)

    def _keep_setting(self) -> None:
        while True:
            self._clock.sleep(self._lock_s_max / 4)
            with self._lock:
                if self._running_now is not None:
                    self._set(*self._running_now)


def _place(stacks: str) -> str | None:
    """Return the line that the app's code was at, in what faulthandler wrote; None if there is none."""
    stack = next((stack for stack in stacks.split("\n\n") if _RUN in stack), "")
    frames = [CodePlace(file, int(line), name) for file, line, name in _FRAME.findall(stack)]
    return place_of(frames) or None
