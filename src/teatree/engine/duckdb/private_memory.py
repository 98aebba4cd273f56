"""The limit of a process's private memory, lowered while a statement runs.

One call of one function (`repeat('x', 3000000000)`) takes gigabytes outside of DuckDB's accounting, and no interrupt
reaches it. If it filled the process, an allocation of any thread could fail. So the kernel's limit is lowered while a
statement runs: an allocation beyond it fails at once, in the statement's own code.
"""

from __future__ import annotations

import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf

from teatree.contracts.clock import SYSTEM_CLOCK, Clock
from teatree.contracts.own_memory import own_memory

READ_MS = 5
"""Milliseconds for which the bytes that the process has count as read."""


class PrivateMemory:
    """Lowers and raises the memory limit of this process; without a limit it does nothing."""

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._lock = threading.Lock()
        self._ceiling = 0
        """The limit of the process, while a statement has a lower one; else 0."""
        self._hard = resource.RLIM_INFINITY
        self._limit = 0
        """That lower limit, at most the ceiling."""
        self._beside = 0
        """Bytes that other threads may take meanwhile."""
        self._clock = clock
        self._data = 0
        """Bytes that the process had when that was read last."""
        self._read_s = -inf

    @contextmanager
    def within(self, bytes_max: int) -> Iterator[None]:
        """Let the process take `bytes_max` more than it has until the block ends; one block at a time.

        A larger allocation raises a MemoryError, or DuckDB's error of that kind.
        """
        with self._lock:
            ceiling, self._hard = resource.getrlimit(resource.RLIMIT_DATA)
            if ceiling != resource.RLIM_INFINITY:
                self._ceiling = ceiling
                self._set(self._recent() + bytes_max + self._beside)
        try:
            yield
        finally:
            with self._lock:
                if self._ceiling:
                    self._set(self._ceiling)
                self._ceiling = 0

    @contextmanager
    def beside(self, bytes_max: int) -> Iterator[None]:
        """Let the block, in another thread than the statements', take `bytes_max` in addition to theirs."""
        with self._lock:
            self._beside += bytes_max
            if self._ceiling:
                self._set(self._limit + bytes_max)
        try:
            yield
        finally:
            with self._lock:
                self._beside -= bytes_max
                if self._ceiling:
                    self._set(self._limit - bytes_max)

    def _recent(self) -> int:
        """Return the bytes that the process has: reading them takes longer than a short statement."""
        now_s = self._clock.monotonic()
        if (now_s - self._read_s) * 1000 > READ_MS:
            self._data, self._read_s = own_memory().data, now_s
        return self._data

    def _set(self, limit: int) -> None:
        self._limit = limit
        resource.setrlimit(resource.RLIMIT_DATA, (min(limit, self._ceiling), self._hard))


PRIVATE_MEMORY = PrivateMemory()
"""The limit of this process."""
