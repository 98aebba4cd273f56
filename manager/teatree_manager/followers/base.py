"""A follower: work that runs after each version; it may lag and coalesce versions, and never delays the next one.

A new one is a file here with a `Follower` and `make`, and its name in `manager_tasks.FOLLOWERS`.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import TypeVar

import structlog
from typing_extensions import override

from teatree.contracts.clock import SYSTEM_CLOCK, Clock
from teatree.contracts.errors import Code, RetryError, TeatreeError
from teatree.contracts.formats.manifest import Manifest
from teatree.contracts.probe import NO_PROBE, Probe
from teatree.contracts.retry import Backoff, Retry
from teatree.engine.errors import DamagedFileError, DamagedVersionError
from teatree.storage.disk import AWAY, FULL
from teatree.storage.ledger.segments import Entry
from teatree_manager.manager_task import ManagerTask

DAMAGE_PAUSE_MS = 5_000
"""The pause before a damaged object is read again: it may be restored, or a newer version may not need it."""
OVER_LIMIT_PAUSE_MS = 60_000
"""The pause before work that needs more memory than it may use is tried again: each try costs as much."""
Found = TypeVar("Found")


async def retrying(
    read: Callable[[], Found], report: Callable[[TeatreeError], None], clock: Clock = SYSTEM_CLOCK
) -> Found:
    """Return what a blocking read in a thread returns, retried while it is refused; `report` is called per error."""

    def read_with_memory() -> Found:
        try:
            return read()
        except MemoryError as e:
            raise RetryError(Code.BUSY, f"The manager has no memory left: {e}") from e

    return await Retry(report=report, clock=clock).in_thread(read_with_memory)


class Follower(ManagerTask):
    """One kind of work that follows the versions."""

    tolerated: tuple[type[TeatreeError], ...] = (RetryError,)
    """Errors after which the work is retried; any other ends the manager."""

    def __init__(self, probe: Probe = NO_PROBE, clock: Clock = SYSTEM_CLOCK) -> None:
        super().__init__()
        self._probe = probe
        self._clock = clock
        self._log = structlog.get_logger().bind(follower=self.name)
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def follow(self, manifest: Manifest, entries: Sequence[Entry] = ()) -> None:  # noqa: ARG002  for those that override it
        """Take a version as the newest, with the outcomes in it; unless overridden, the work starts."""
        self.wake()

    def archived(self, manifest: Manifest) -> None:
        """Take in that a version was archived; unless overridden, this is ignored."""

    @property
    def is_catching_up(self) -> bool:
        """Whether it lags and still makes progress: an idle model gets no next manager that would continue it."""
        return False

    def wake(self) -> None:
        """Start the work, or repeat it if it runs."""
        self._idle.clear()
        self._wake.set()

    @override
    async def drained(self) -> None:
        """Wait until there is no work left, or none that can be done before the store is repaired."""
        await self._idle.wait()

    @override
    async def run(self) -> None:
        """Work for ever; tolerated errors and damage in the store are retried, any other error ends the manager.

        The requests of a model whose newest pack was damaged are still applied: its read-write file is good.
        """
        backoff = Backoff(clock=self._clock)
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._work()
            except TeatreeError as e:
                if is_damage_of_store(e):
                    await self._wait_for_repair(e)
                elif isinstance(e, self.tolerated):
                    await self._wait_for_return(e, backoff)
                else:
                    raise
                self._wake.set()
                continue
            if self.damage is not None:
                self._log.warning("the damage in the store was repaired")
            self.error = self.damage = None
            backoff.reset()
            if not self._wake.is_set():
                self._idle.set()

    async def _work(self) -> None:
        try:
            with self._probe.step("manager.follower", follower=self.name):
                await self.work()
        except (MemoryError, RuntimeError) as e:
            if not is_shortage(e):
                raise
            raise RetryError(Code.BUSY, f"The manager has no memory left for {self.name}: {e}") from e
        except OSError as e:
            if e.errno not in FULL | AWAY:
                raise
            code = Code.DISK_FULL if e.errno in FULL else Code.UNAVAILABLE
            raise RetryError(code, f"The disk refuses what {self.name} does: {e}") from e

    async def _wait_for_return(self, error: TeatreeError, backoff: Backoff) -> None:
        if str(error) != self.error:
            self._log.warning("waiting for an unavailable part", error=str(error))
        self.error = str(error)
        if error.code is Code.OVER_LIMIT:
            await self._clock.sleep_async(OVER_LIMIT_PAUSE_MS / 1000)
        else:
            await backoff.pause(error)

    async def _wait_for_repair(self, error: TeatreeError) -> None:
        if str(error) != self.damage:
            self._log.error("the store is damaged", code=str(error.code), error=str(error))
        self.error = self.damage = str(error)
        self._idle.set()
        await self._clock.sleep_async(DAMAGE_PAUSE_MS / 1000)
        self._idle.clear()

    @abstractmethod
    async def work(self) -> None:
        """Do all the work there is now; a `RetryError` means: try again later."""


def is_shortage(error: BaseException) -> bool:
    """Return whether the process has no memory left, or none for the stack of another thread."""
    return isinstance(error, MemoryError) or "can't start new thread" in str(error)


def is_damage_of_store(error: TeatreeError) -> bool:
    """Return whether an error means a changed or deleted object; damaged local files the next manager makes again."""
    is_ours = isinstance(error, DamagedFileError | DamagedVersionError)
    return error.code in (Code.CORRUPT, Code.NOT_FOUND) and not is_ours
