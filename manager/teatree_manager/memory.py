"""A limit on the memory of the whole process, kept by the kernel: DuckDB and Arrow sometimes exceed their own limits.

A function's result that DuckDB computes while it plans (`repeat('x', 3000000000)`), or a body that decodes to far more
than it declares, would otherwise take the memory of NATS and PostgreSQL on this machine. With the limit the allocation
fails, and with it that one request, as `over_limit`.
"""

from __future__ import annotations

import os
import resource
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier


def limit_memory(bytes_max: int) -> None:
    """Let private memory of this process grow to `bytes_max` (0: no limit) and never beyond the machine's own.

    `RLIMIT_DATA` counts what is allocated, stacks too, but neither files that are mapped nor address space that is only
    reserved. Only Linux counts allocations by mmap there; elsewhere nothing is limited.
    """
    if not bytes_max or sys.platform != "linux":
        return
    machine_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = min(bytes_max, machine_bytes)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))


def started_threads(count: int) -> ThreadPoolExecutor:
    """Return an executor whose threads run already: none of their stacks can be refused when memory is short."""
    executor = ThreadPoolExecutor(count, "manager")
    together = Barrier(count + 1)
    for _ in range(count):
        executor.submit(together.wait)
    together.wait()
    return executor
