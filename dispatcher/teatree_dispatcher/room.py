"""Room for managers on this host: which models wait for a place, and which idle manager must give up its place."""

from __future__ import annotations

from collections.abc import Collection

FORGOTTEN_MS = 30_000
"""Milliseconds after which a model stops waiting if no manager is requested for it again, and after which a manager
that was asked to end and did not may be asked again."""


class Room:
    """Places for managers, given out in the order of waiting. Decisions only, no effects."""

    def __init__(self, managers_max: int, idle_ms_min: float) -> None:
        """`idle_ms_min` is how long a manager must be unused before it may be asked to end."""
        self._managers_max = managers_max
        self._idle_ms_min = idle_ms_min
        self._waiting: dict[str, float] = {}
        """When a manager was last requested, by model, in the order of waiting."""
        self._used_ms: dict[str, float] = {}
        self._dismissed_ms: dict[str, float] = {}

    @property
    def waiting(self) -> tuple[str, ...]:
        """The models that wait for a place, the first of them first."""
        return tuple(self._waiting)

    def used(self, model: str, now_ms: float) -> None:
        """Note that a model is used."""
        self._used_ms[model] = now_ms

    def admits(self, model: str, served: Collection[str], now_ms: float) -> bool:
        """Return whether a manager may be started; otherwise the model waits behind those before it."""
        self._waiting = {m: asked for m, asked in self._waiting.items() if now_ms - asked < FORGOTTEN_MS}
        order = list(self._waiting)
        ahead = order.index(model) if model in self._waiting else len(order)
        if self._managers_max - len(served) > ahead:
            self._waiting.pop(model, None)
            self._used_ms[model] = now_ms
            return True
        self._waiting[model] = now_ms
        return False

    def candidates(self, served: Collection[str], now_ms: float) -> list[str]:
        """Return the models whose managers may be asked to end, least recently used first; none while none waits."""
        self._used_ms = {m: used for m, used in self._used_ms.items() if m in served or m in self._waiting}
        self._dismissed_ms = {
            m: at for m, at in self._dismissed_ms.items() if m in served and now_ms - at < FORGOTTEN_MS
        }
        if self.missing(served) <= 0:
            return []
        idle = [
            model
            for model in served
            if model not in self._dismissed_ms and now_ms - self._used_ms.get(model, 0.0) >= self._idle_ms_min
        ]
        return sorted(idle, key=lambda model: (self._used_ms.get(model, 0.0), model))

    def missing(self, served: Collection[str]) -> int:
        """Return how many more managers must end for all that wait."""
        free = self._managers_max - len(served)
        return len(self._waiting) - free - len(self._dismissed_ms)

    def dismissed(self, model: str, now_ms: float) -> None:
        """Note that a manager was asked to end."""
        self._dismissed_ms[model] = now_ms
