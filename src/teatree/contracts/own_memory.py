"""The memory of this process, as the kernel counts it."""

from __future__ import annotations

import resource

from attrs import frozen


@frozen
class OwnMemory:
    """Bytes of this process; all 0 where /proc is missing."""

    resident: int = 0
    shared: int = 0
    """Of the resident ones, those of files and shared memory."""
    data: int = 0
    """Private memory: what `RLIMIT_DATA` counts, and the stack."""

    @property
    def unshared(self) -> int:
        """Of the resident ones, those that are shared with no file."""
        return self.resident - self.shared


def own_memory() -> OwnMemory:
    """Return the memory that this process has now."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123  a pseudo file, read for each request
            _, resident, shared, _, _, data, _ = file.read().split()
    except FileNotFoundError:
        return OwnMemory()
    page_bytes = resource.getpagesize()
    return OwnMemory(int(resident) * page_bytes, int(shared) * page_bytes, int(data) * page_bytes)
