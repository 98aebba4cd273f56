"""The breaker round a part outside of this process: while that is away, it is asked seldom and by one caller at a time.

Threads share one breaker for each part. Closed, it only counts failures in a row. Open, it refuses at once, but for one
call now and then, which finds out whether the part is back; whoever hears a success first closes it for all. A store
that answers 500 for one object alone opens it too, if nothing else is asked meanwhile: for one pause, then a success of
another call closes it.
"""

from __future__ import annotations

import random
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import structlog
from typing_extensions import override

from teatree.contracts.errors import Code, RetryError, TeatreeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from teatree.contracts.settings import BreakerSettings


class CircuitOpenError(RetryError):
    """A part is known to be away. It reads the same for all callers and as long as the part stays away."""

    def __init__(self, breaker: Breaker, part: str, reason: str, again_ms_max: int) -> None:
        super().__init__(
            Code.UNAVAILABLE,
            f"{part} is away: {reason}",
            hint=f"It is tried again at least every {again_ms_max / 1000:g} s.",
        )
        self.breaker: Breaker | None = breaker
        """Where to wait for the part; None in a copy, which may have come from another process."""

    @override
    def _portable_state(self) -> dict[str, Any]:
        return {**self.__dict__, "breaker": None}


class Breaker:
    """Says whether a part may be asked, and learns from what became of it."""

    def __init__(self, part: str, settings: BreakerSettings, clock: Callable[[], float] = time.monotonic) -> None:
        """`part` names it at the beginning of a sentence; `clock` returns seconds."""
        self._part = part
        self._settings = settings
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        """In a row: of all calls while closed, of those that looked whether the part is back while open."""
        self._reason: str | None = None
        """What the failure said that opened it; None while it is closed."""
        self._opened_at_s = 0.0
        self._again_at_s = 0.0
        self._log = structlog.get_logger()

    def refuses(self) -> bool:
        """Return whether a call would be refused now."""
        with self._lock:
            return self._reason is not None and self._clock() < self._again_at_s

    @contextmanager
    def guard(self, *, always: bool = False) -> Iterator[None]:
        """Ask the part in the block, or raise `unavailable` without running it; `always`: never refuse.

        An `unavailable` from the block is a failure; any other error of ours is an answer, as good as a success.
        """
        probes = self._admit(always=always)
        try:
            yield
        except TeatreeError as e:
            if e.code is not Code.UNAVAILABLE:
                self._answered()
                raise
            away = self._failed(e, probes=probes)
            if away is None:
                raise
            raise away from e
        except BaseException:
            if probes:  # that told nothing: the next one may look
                with self._lock:
                    self._again_at_s = self._clock()
            raise
        self._answered()

    def _admit(self, *, always: bool) -> bool:
        """Return whether this call is the one that looks whether the part is back; raises if it is refused."""
        with self._lock:
            if self._reason is None:
                return False
            now_s = self._clock()
            if now_s >= self._again_at_s:
                # One that hears nothing, as from a server that hangs, is not waited for any longer than a failed one.
                self._again_at_s = now_s + self._settings.open_ms_max / 1000
                return True
            if always:
                return False
            raise self._away(self._reason)

    def _answered(self) -> None:
        with self._lock:
            was_open, self._reason = self._reason is not None, None
            self._failures = 0
            away_ms = round((self._clock() - self._opened_at_s) * 1000)
        if was_open:
            self._log.info("back", what=self._part, away_ms=away_ms)

    def _failed(self, error: TeatreeError, *, probes: bool) -> CircuitOpenError | None:
        """Count a failure; return what to raise in its place while open."""
        with self._lock:
            if self._reason is not None and not probes:  # others look: this tells nothing new
                return self._away(self._reason)
            self._failures += 1
            beyond = self._failures - self._settings.failures_max
            if beyond < 0:
                return None
            now_s = self._clock()
            limit_ms = min(self._settings.open_ms_max, self._settings.open_ms_min * 2**beyond)
            self._again_at_s = now_s + random.uniform(limit_ms / 2, limit_ms) / 1000  # noqa: S311  no secret
            opens = self._reason is None
            if self._reason is None:
                self._reason, self._opened_at_s = error.message, now_s
            away = self._away(self._reason)
        if opens:
            self._log.warning("away: refused until it answers", what=self._part, error=str(error))
        return away

    def _away(self, reason: str) -> CircuitOpenError:
        return CircuitOpenError(self, self._part, reason, self._settings.open_ms_max)
