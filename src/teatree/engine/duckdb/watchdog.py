"""The watchdog of a connection: interrupts a statement that exceeds its limit of time or memory.

One thread per connection checks a few times a second: a timer for each statement would cost more than most of them.
DuckDB checks for the interrupt between two vectors, never within a function: `levenshtein` of two long texts continues.
If a block has not ended some time after its interrupt, `on_stuck` is called, which ends the process.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from attrs import define

from teatree.contracts.clock import SYSTEM_CLOCK, Clock
from teatree.contracts.errors import Code, RetryError, TeatreeError
from teatree.contracts.own_memory import own_memory

LOOK_MS = 100


@define
class Block:
    """A block of statements that is being watched."""

    what: str
    where: str | None
    limit_ms: int
    deadline_s: float
    on_stuck: Callable[[], None] | None
    may_interrupt: bool
    clock: Clock
    error: RetryError | None = None
    """Why it was interrupted."""

    def check(self) -> None:
        """Raise `timed_out` if the time is over: for code between statements, which no interrupt reaches."""
        if self.clock.monotonic() > self.deadline_s:
            raise self.timed_out()

    def timed_out(self) -> RetryError:
        """Return the error of a block whose time is over."""
        return RetryError(
            Code.TIMED_OUT,
            f"{self.what} ran longer than {self.limit_ms} ms.",
            where=self.where,
            hint="Ask for less at once, or have the model's limit raised.",
        )


class Watchdog:
    """Watches the statements of one connection, which one thread uses."""

    def __init__(
        self,
        interrupt: Callable[[], None],
        *,
        stuck_ms_max: int = 0,
        resident_bytes_max: int | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """`interrupt` makes the running statement fail; it is called from the watchdog's thread.

        A block that still runs `stuck_ms_max` after its time is stuck. A block is also interrupted when the process has
        more than `resident_bytes_max` of private memory resident.
        """
        self._interrupt = interrupt
        self._stuck_ms_max = stuck_ms_max
        self._resident_bytes_max = resident_bytes_max
        self._clock = clock
        self._lock = threading.Lock()
        self._block: Block | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    @contextmanager
    def limit(
        self,
        limit_ms: int,
        what: str,
        where: str | None = None,
        *,
        on_stuck: Callable[[], None] | None = None,
        may_interrupt: bool = True,
    ) -> Iterator[Block]:
        """Run the block; raises `timed_out` or `over_limit` if a statement in it was interrupted for that.

        `on_stuck` is called, from the watchdog's thread, when the interrupt has had no effect.
        """
        deadline_s = self._clock.monotonic() + limit_ms / 1000
        block = self._block = Block(what, where, limit_ms, deadline_s, on_stuck, may_interrupt, self._clock)
        try:
            yield block
        except TeatreeError as e:
            if block.error is not None:
                raise block.error from e
            raise
        finally:
            with self._lock:  # the interrupt is over before the next statement begins
                self._block = None

    def interrupt(self, error: RetryError) -> None:
        """Interrupt the running block, if any; it raises `error`, or that of an earlier interrupt."""
        with self._lock:
            if self._block is not None and self._block.may_interrupt:
                self._block.error = self._block.error or error
                self._interrupt()

    def _watch(self) -> None:
        while not self._clock.wait(self._closed, LOOK_MS / 1000):
            on_stuck = None
            with self._lock:
                if self._block is not None:
                    on_stuck = self._look(self._block)
            if on_stuck is not None:
                on_stuck()

    def _look(self, block: Block) -> Callable[[], None] | None:
        over_s = self._clock.monotonic() - block.deadline_s
        if over_s > self._stuck_ms_max / 1000 and block.on_stuck is not None:
            return block.on_stuck
        if block.may_interrupt:
            if block.error is None:
                block.error = block.timed_out() if over_s > 0 else self._memory_error()
            if block.error is not None:
                self._interrupt()
        return None

    def _memory_error(self) -> RetryError | None:
        if self._resident_bytes_max is None or own_memory().unshared <= self._resident_bytes_max:
            return None
        return RetryError(
            Code.OVER_LIMIT,
            "The request needs more memory than its manager may use.",
            hint="Ask for less at once, or have the manager's limit raised.",
        )

    def close(self) -> None:
        """End the thread."""
        self._closed.set()
        self._thread.join()
