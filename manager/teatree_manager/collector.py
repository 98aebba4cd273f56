"""When Python's cyclic garbage collector runs in a manager: at rest, when memory has grown, and else rarely.

By default it walks over all that waits (requests, outcomes, rows for the catalog) after every few hundred allocations:
half of a loaded manager's time, for hardly any garbage, since reference counts free almost everything.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable

from teatree_manager.memory import resident_bytes

THRESHOLDS = (50_000, 20, 50)
"""Allocations, collections of the youngest and of the middle generation before each generation's collection."""
IDLE_MS = 1_000
"""Milliseconds without work before a collection, which a request that comes just then waits for."""
GROWTH_BYTES = 256_000_000
"""Bytes that resident memory grows by before a collection: garbage in cycles can hold large buffers."""
LOOK_MS = 250


def collect_rarely() -> None:
    """Leave what is loaded by now out of every collection, and collect what comes later by `THRESHOLDS`."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)


async def collect_when_idle(idle_ms: Callable[[], float]) -> None:
    """Collect once after each time of work, and whenever memory is larger than it was; `idle_ms` is 0 at work."""
    has_collected = True
    peak = resident_bytes()
    while True:
        await asyncio.sleep(LOOK_MS / 1000)
        is_idle = idle_ms() >= IDLE_MS
        has_grown = resident_bytes() > peak + GROWTH_BYTES
        if has_grown or (is_idle and not has_collected):
            gc.collect()
            peak = max(peak, resident_bytes())
        has_collected = is_idle
