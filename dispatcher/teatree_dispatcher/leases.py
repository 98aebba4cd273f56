"""Watching for leases that ended though their holder runs: it hangs, or PostgreSQL was unavailable."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

AGAIN_MS = 30_000
"""Milliseconds between two successors for one model."""


class LeaseWatch:
    """Notices leases that stay ended."""

    def __init__(self, hanging_ms_min: int) -> None:
        """`hanging_ms_min` is how long a lease must stay ended. A successor checks again, by the database's clock."""
        self._hanging_ms_min = hanging_ms_min
        self._ended_at_ms: dict[str, float] = {}

    def hanging(self, leases: Mapping[str, datetime | None], now: datetime, now_ms: float) -> list[str]:
        """Return the models whose manager needs a contender, given when each lease ends, None without a lease."""
        ended = {model for model, until in leases.items() if until is not None and until < now}
        self._ended_at_ms = {model: self._ended_at_ms.get(model, now_ms) for model in ended}
        found = [model for model in sorted(ended) if now_ms - self._ended_at_ms[model] >= self._hanging_ms_min]
        for model in found:
            self._ended_at_ms[model] = now_ms + AGAIN_MS - self._hanging_ms_min
        return found
