"""The processor time that live queries may take: a share of one core, part of which can be saved while nothing runs.

Pure: the clock is passed in.
"""

from __future__ import annotations

from teatree.contracts.live_settings import LiveSettings

DEBT_MS_MAX = 2_000
"""Milliseconds of processor time that can be owed: first answers do not wait, and must not stop changes for long."""
SHARE_MIN = 0.001


class CoreBudget:
    """What is left of it."""

    def __init__(self, settings: LiveSettings, now_ms: float) -> None:
        """At first all that can be saved is there."""
        self._share = max(settings.core_share, SHARE_MIN)
        self._saved_ms = settings.saved_ms
        self._left_ms = float(settings.saved_ms)
        self._at_ms = now_ms

    def spend(self, used_ms: float, now_ms: float) -> None:
        """Take processor time that was used."""
        self._earn(now_ms)
        self._left_ms = max(self._left_ms - used_ms, -DEBT_MS_MAX)

    def wait_ms(self, now_ms: float) -> float:
        """Return for how long nothing may run; 0 if something may."""
        self._earn(now_ms)
        return max(0.0, -self._left_ms / self._share)

    def _earn(self, now_ms: float) -> None:
        earned_ms = (now_ms - self._at_ms) * self._share
        self._left_ms = min(self._left_ms + earned_ms, float(self._saved_ms))
        self._at_ms = now_ms
