"""The private memory of a process that is limited: how much of it the statement that runs may take.

One call of one function (`repeat('x', 3000000000)`) takes gigabytes outside of DuckDB's accounting, and no interrupt
reaches it. Were it to fill the process, whichever thread allocates next would fail. So the kernel's limit is lowered
while a statement runs: an allocation beyond it fails at once, where it is asked for.
"""

from __future__ import annotations

import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_DATA_FIELD = 5
"""Pages of private memory in /proc/self/statm: what `RLIMIT_DATA` counts, and the stack."""


class PrivateMemory:
    """Lowers and raises the limit of this process, of which there is one; without a limit it does nothing."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ceiling = 0
        """The limit of the process, while a statement has a lower one; else 0."""
        self._limit = 0
        """That lower one, which the ceiling bounds."""
        self._beside = 0
        """Bytes that others may take meanwhile."""

    @contextmanager
    def within(self, bytes_max: int) -> Iterator[None]:
        """Let the process take `bytes_max` more than it has until the block ends; one block at a time.

        What asks for more meets a MemoryError, or DuckDB's error of that kind.
        """
        with self._lock:
            ceiling, _ = resource.getrlimit(resource.RLIMIT_DATA)
            if ceiling != resource.RLIM_INFINITY:
                self._ceiling = ceiling
                self._set(_used_bytes() + bytes_max + self._beside)
        try:
            yield
        finally:
            with self._lock:
                if self._ceiling:
                    self._set(self._ceiling)
                self._ceiling = 0

    @contextmanager
    def beside(self, bytes_max: int) -> Iterator[None]:
        """Let the block, in a thread beside the statements', take so much without taking it from them."""
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

    def _set(self, limit: int) -> None:
        self._limit = limit
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (min(limit, self._ceiling), hard))


PRIVATE_MEMORY = PrivateMemory()
"""That of this process."""


def _used_bytes() -> int:
    fields = Path("/proc/self/statm").read_text(encoding="ascii").split()
    return int(fields[_DATA_FIELD]) * resource.getpagesize()
