"""Python's cyclic garbage collector in a manager: it runs when the manager is idle, when memory has grown, else rarely.

By default it walks over all that waits (requests, outcomes, rows for the catalog) after every few hundred allocations:
half of a loaded manager's time, for hardly any garbage, since reference counts free almost everything.
"""

from __future__ import annotations

import atexit
import gc
from collections.abc import Callable

from teatree.contracts.clock import Clock
from teatree.contracts.own_memory import own_memory

THRESHOLDS = (50_000, 20, 50)
"""Allocations, collections of the youngest and of the middle generation before each generation's collection."""
IDLE_MS = 1_000
"""Milliseconds without work before a collection: a request that arrives during it has to wait."""
GROWTH_BYTES = 256_000_000
"""Bytes that resident memory grows by before a collection: garbage in cycles can hold large buffers."""
LOOK_MS = 250


def collect_rarely() -> None:
    """Exempt all objects that exist now from collections; collect later ones by `THRESHOLDS`.

    The first are freed at the end all the same: else DuckDB's binding writes a page about leaked objects into the log.
    """
    gc.collect()
    gc.freeze()
    atexit.register(gc.unfreeze)
    gc.set_threshold(*THRESHOLDS)


async def collect_when_idle(idle_ms: Callable[[], float], clock: Clock) -> None:
    """Collect once in each idle period, and whenever memory has grown; `idle_ms` returns 0 while there is work."""
    has_collected = True
    peak = own_memory().resident
    while True:
        await clock.sleep_async(LOOK_MS / 1000)
        is_idle = idle_ms() >= IDLE_MS
        has_grown = own_memory().resident > peak + GROWTH_BYTES
        if has_grown or (is_idle and not has_collected):
            gc.collect()
            peak = max(peak, own_memory().resident)
        has_collected = is_idle
