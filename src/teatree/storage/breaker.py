"""The circuit breaker of a part outside of this process: while that is unavailable, few calls reach it, one at a time.

Threads share one breaker for each part. Closed, it only counts failures in a row. Open, it refuses calls at once, but
for one now and then that probes the part; the first call that succeeds closes it for all. A store that answers 500 for
one object alone opens it too, if nothing else is requested meanwhile: for one pause, then a success of another call
closes it.
"""

from __future__ import annotations

import logging
import random
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from teatree.contracts.clock import SYSTEM_CLOCK, Clock
from teatree.contracts.errors import Code, TeatreeError
from teatree.contracts.logs import log_event
from teatree.contracts.retry import CallRefusedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from teatree.contracts.settings import BreakerSettings


class CircuitOpenError(CallRefusedError):
    """A part is known to be unavailable. The message is the same for all callers until it is available again."""

    def __init__(self, breaker: Breaker, part: str, reason: str, again_ms_max: int) -> None:
        super().__init__(
            Code.UNAVAILABLE,
            f"{part} is unavailable: {reason}",
            hint=f"It is tried again at least every {again_ms_max / 1000:g} s.",
        )
        self.breaker = breaker

    @override
    def _portable_state(self) -> dict[str, Any]:
        return {**self.__dict__, "breaker": None}


class Breaker:
    """Decides whether a part may be called, from the results of earlier calls."""

    def __init__(self, part: str, settings: BreakerSettings, clock: Clock = SYSTEM_CLOCK) -> None:
        """`part` names it at the beginning of a sentence."""
        self._part = part
        self._settings = settings
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        """In a row: of all calls while closed, of the probes while open."""
        self._reason: str | None = None
        """The message of the failure that opened it; None while it is closed."""
        self._opened_at_s = 0.0
        self._again_at_s = 0.0

    def refuses(self) -> bool:
        """Return whether a call would be refused now."""
        with self._lock:
            return self._reason is not None and self._clock.monotonic() < self._again_at_s

    @contextmanager
    def guard(self, *, always: bool = False) -> Iterator[None]:
        """Call the part in the block, or raise `unavailable` without running it; `always`: never refuse.

        An `unavailable` from the block is a failure; any other Teatree error is an answer, which counts as a success.
        """
        probes = self._admit(always=always)
        try:
            yield
        except TeatreeError as e:
            if e.code is not Code.UNAVAILABLE:
                self._answered()
                raise
            refusal = self._failed(e, probes=probes)
            if refusal is None:
                raise
            raise refusal from e
        except BaseException:
            if probes:  # without a result: the next call may probe
                with self._lock:
                    self._again_at_s = self._clock.monotonic()
            raise
        self._answered()

    def _admit(self, *, always: bool) -> bool:
        """Return whether this call probes the part; raises if it is refused."""
        with self._lock:
            if self._reason is None:
                return False
            now_s = self._clock.monotonic()
            if now_s >= self._again_at_s:
                # A probe without a reply, as from a server that hangs, delays the next one no longer than a failed one.
                self._again_at_s = now_s + self._settings.open_ms_max / 1000
                return True
            if always:
                return False
            raise self._refusal(self._reason)

    def _answered(self) -> None:
        with self._lock:
            was_open, self._reason = self._reason is not None, None
            self._failures = 0
            unavailable_ms = round((self._clock.monotonic() - self._opened_at_s) * 1000)
        if was_open:
            log_event(logging.INFO, "available again", what=self._part, unavailable_ms=unavailable_ms)

    def _failed(self, error: TeatreeError, *, probes: bool) -> CircuitOpenError | None:
        """Count a failure; return what to raise in its place while open."""
        with self._lock:
            if self._reason is not None and not probes:  # only probes count while it is open
                return self._refusal(self._reason)
            self._failures += 1
            beyond = self._failures - self._settings.failures_max
            if beyond < 0:
                return None
            now_s = self._clock.monotonic()
            limit_ms = min(self._settings.open_ms_max, self._settings.open_ms_min * 2**beyond)
            self._again_at_s = now_s + random.uniform(limit_ms / 2, limit_ms) / 1000  # noqa: S311  no secret
            opens = self._reason is None
            if self._reason is None:
                self._reason, self._opened_at_s = error.message, now_s
            refusal = self._refusal(self._reason)
        if opens:
            log_event(
                logging.WARNING, "unavailable: calls are refused until it answers", what=self._part, error=str(error)
            )
        return refusal

    def _refusal(self, reason: str) -> CircuitOpenError:
        return CircuitOpenError(self, self._part, reason, self._settings.open_ms_max)
