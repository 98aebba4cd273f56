"""Repeated reads of damaged data: damage on the way from the store ends with the next read, damage in it does not."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from teatree.contracts.errors import CorruptError

T = TypeVar("T")
READS_MAX = 3
"""Reads before it is called damage: each costs what the first did."""
WAIT_S = 0.1
"""Seconds before the second read; doubles with each, with jitter."""


def reread(read: Callable[[], T]) -> T:
    """Return what `read` returns, tried again where it raises `corrupt`: the last of these is raised."""
    for attempt in range(1, READS_MAX):
        try:
            return read()
        except CorruptError:
            time.sleep(WAIT_S * 2 ** (attempt - 1) * random.uniform(0.5, 1))  # noqa: S311  # only spreads the reads
    return read()
