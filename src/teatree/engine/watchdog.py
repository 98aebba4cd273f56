"""A watchdog over statements: interrupts the one that runs longer than it may.

One thread a connection, looking a few times a second: a timer for each statement would cost more than most of them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from teatree.contracts.errors import Code, RetryError, TeatreeError

LOOK_MS = 100


class Watchdog:
    """Watches what one thread runs on one connection."""

    def __init__(self, interrupt: Callable[[], None]) -> None:
        """`interrupt` makes the running statement fail; it is called from the watchdog's thread."""
        self._interrupt = interrupt
        self._lock = threading.Lock()
        self._deadline_s: float | None = None
        self._expired = False
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    @contextmanager
    def limit(self, limit_ms: int, what: str, where: str | None = None) -> Iterator[None]:
        """Run the block; raises `timed_out` if a statement in it was interrupted because `limit_ms` were over."""
        self._expired = False
        self._deadline_s = time.monotonic() + limit_ms / 1000
        try:
            yield
        except TeatreeError as e:
            if self._expired:
                raise RetryError(
                    Code.TIMED_OUT,
                    f"{what} ran longer than {limit_ms} ms.",
                    where=where,
                    hint="Ask for less at once, or have the model's limit raised.",
                ) from e
            raise
        finally:
            with self._lock:  # the interrupt is over before the next statement begins
                self._deadline_s = None

    def _watch(self) -> None:
        while not self._closed.wait(LOOK_MS / 1000):
            with self._lock:
                if self._deadline_s is not None and time.monotonic() > self._deadline_s:
                    self._expired = True
                    self._interrupt()

    def close(self) -> None:
        """End the thread."""
        self._closed.set()
        self._thread.join()
