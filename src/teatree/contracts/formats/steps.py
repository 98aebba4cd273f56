"""The steps in which a version is made, and how long each took."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen

from teatree.contracts.clock import SYSTEM_CLOCK, Clock


@frozen
class Steps:
    """Steps that followed one another without a gap."""

    ended_s: float
    """When the last one ended, by the clock's monotonic time."""
    clock: Clock
    us: Mapping[str, int] = field(factory=dict)
    """Microseconds by step, in their order."""

    @classmethod
    def begin(cls, clock: Clock = SYSTEM_CLOCK) -> Steps:
        """Return no step yet: the first begins now."""
        return cls(clock.monotonic(), clock)

    def then(self, step: str) -> Steps:
        """Return these and the step that ends now; the time of a repeated one is added to it."""
        now_s = self.clock.monotonic()
        taken_us = self.us.get(step, 0) + round((now_s - self.ended_s) * 1_000_000)
        return Steps(now_s, self.clock, {**self.us, step: taken_us})
