"""Delaying the first local file of a restored model: it needs the processors, disk and store that requests need."""

from __future__ import annotations

from collections.abc import Callable

from teatree.contracts.clock import Clock
from teatree_manager.followers.local_file import LocalFollower

WAIT_MS_MAX = 2_000
"""Milliseconds for which requests have precedence; a read that needs the file ends the delay at once."""
LOOK_MS = 10


async def release_later(local: LocalFollower, is_answered: Callable[[], bool], clock: Clock) -> None:
    """Release the first local file once the requests that wait in the log are answered."""
    end_s = clock.monotonic() + WAIT_MS_MAX / 1000
    while not is_answered() and clock.monotonic() < end_s:
        await clock.sleep_async(LOOK_MS / 1000)
    local.release()
