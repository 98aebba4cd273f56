"""When the first local file of a restored model is made: it needs the processors, disk and store that requests need."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from teatree_manager.local_follower import LocalFollower

WAIT_MS_MAX = 2_000
"""Milliseconds for which it lets requests go first; a read that waits for it ends that at once."""
LOOK_MS = 10


async def release_later(local: LocalFollower, is_answered: Callable[[], bool]) -> None:
    """Have the first local file made once what waits in the log is answered."""
    end_s = time.monotonic() + WAIT_MS_MAX / 1000
    while not is_answered() and time.monotonic() < end_s:  # noqa: ASYNC110  what it looks at has no event of its own
        await asyncio.sleep(LOOK_MS / 1000)
    local.release()
