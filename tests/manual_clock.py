"""A clock that a test moves."""

from __future__ import annotations


class ManualClock:
    """Returns the same time until the test changes `now_s`."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s
