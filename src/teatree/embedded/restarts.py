"""Backoff of a server's restarts: the waits double while it keeps exiting."""

from __future__ import annotations

from attrs import evolve, frozen

_WAIT_S_MIN = 0.1
_WAIT_S_MAX = 30.0
_STEADY_S = 60.0
"""A server that ran this long has recovered: its next exit counts as the first."""


@frozen
class Restarts:
    """The state of one server's restarts; times are of the monotonic clock."""

    started_s: float
    """When it was last started."""
    wait_s: float = 0.0
    """How long to wait after the last exit; 0 if there was none."""
    due_s: float | None = None
    """When it is to be started again; None while it runs."""

    def after_exit(self, now_s: float) -> Restarts:
        """Return the state after an exit, or after a start that failed."""
        ran_well = self.due_s is None and now_s - self.started_s >= _STEADY_S
        wait_s = _WAIT_S_MIN if ran_well or not self.wait_s else min(self.wait_s * 2, _WAIT_S_MAX)
        return evolve(self, wait_s=wait_s, due_s=now_s + wait_s)

    def after_start(self, now_s: float) -> Restarts:
        """Return the state after a successful start."""
        return evolve(self, started_s=now_s, due_s=None)
