"""Repeated reads of damaged data: damage on the way from the store ends with the next read, damage in it does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from teatree.contracts.errors import CorruptError, TeatreeError
from teatree.contracts.retry import Retry

T = TypeVar("T")
READS_MAX = 3
"""Reads before it is called damage: each costs what the first did."""


def reread(read: Callable[[], T]) -> T:
    """Return what `read` returns, tried again where it raises `corrupt`: the last of these is raised."""
    return _REREAD.call(read)


def _is_damage(error: TeatreeError) -> bool:
    return isinstance(error, CorruptError)


_REREAD = Retry(tries_max=READS_MAX, again=_is_damage)
