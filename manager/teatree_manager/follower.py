"""A lane: work that follows the versions at its own pace, lagging and coalescing, never in the way of the next one."""

from __future__ import annotations

import asyncio
import random
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

import structlog

from teatree.contracts.errors import Code, RetryError, TeatreeError
from teatree.engine.duckdb_errors import DamagedFileError, DamagedVersionError
from teatree.storage.breaker import AwayError
from teatree.storage.disk import AWAY, FULL

BACKOFF_MS_MIN = 100
BACKOFF_MS_MAX = 3_000
"""The longest pause before something that was away is tried again: what waits goes on that soon after its return."""
DAMAGE_PAUSE_MS = 5_000
"""The pause before what is damaged in the store is read again: it is restored, or a newer version does without it."""
OVER_LIMIT_PAUSE_MS = 60_000
"""The pause before work is tried again that needs more memory than it may use: it costs as much each time."""
LOOK_MS = 50
"""Milliseconds between looks whether a breaker lets calls through again."""

Found = TypeVar("Found")


class Backoff:
    """Growing pauses with jitter: full pauses of many processes would hit what comes back all at once."""

    def __init__(self) -> None:
        self._failures = 0

    def reset(self) -> None:
        """Begin with short pauses again."""
        self._failures = 0

    async def pause(self, error: TeatreeError | None = None) -> None:
        """Wait for the next try: a growing time, or until the breaker lets calls through that refused this one."""
        if isinstance(error, AwayError) and error.breaker is not None:
            for _ in range(BACKOFF_MS_MAX // LOOK_MS):  # then its caller may have been told to stop
                if not error.breaker.refuses():
                    break
                await asyncio.sleep(LOOK_MS / 1000)
            return
        limit_ms = min(BACKOFF_MS_MAX, BACKOFF_MS_MIN * 2**self._failures)
        self._failures += 1
        await asyncio.sleep(random.uniform(limit_ms / 2, limit_ms) / 1000)  # noqa: S311  no secret


async def rounds(interval_ms: int) -> AsyncIterator[None]:
    """Yield for ever, at moments `interval_ms` apart at most, so that not all models do it at once; 0 for never."""
    while interval_ms:
        await asyncio.sleep(interval_ms / 1000 * random.uniform(0.5, 1))  # noqa: S311  no secret
        yield


async def retrying(read: Callable[[], Found], tell: Callable[[RetryError], None]) -> Found:
    """Return what a blocking read returns, in a thread, tried again until nothing is away; `tell` hears each error."""
    backoff = Backoff()
    while True:
        try:
            return await asyncio.to_thread(read)
        except RetryError as e:
            error = e
        except MemoryError as e:
            error = RetryError(Code.BUSY, f"The manager has no memory left: {e}")
        tell(error)
        await backoff.pause(error)


class Follower(ABC):
    """One kind of such work."""

    name: str
    tolerated: tuple[type[TeatreeError], ...] = (RetryError,)
    """What is waited out; anything else ends the manager."""

    def __init__(self) -> None:
        self._log = structlog.get_logger().bind(follower=self.name)
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self.error: str | None = None
        """Why the lane waits; None while it works."""
        self.damage: str | None = None
        """What it cannot read in the store; None otherwise."""

    def wake(self) -> None:
        """Say that there is work."""
        self._idle.clear()
        self._wake.set()

    async def drained(self) -> None:
        """Wait until there is no work left, or none that can be done before somebody restores the store."""
        await self._idle.wait()

    async def run(self) -> None:
        """Work for ever; what is tolerated is tried again, and so is damage in the store; all else ends the manager.

        The requests of a model whose newest pack was damaged are still applied: its read-write file is good.
        """
        backoff = Backoff()
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
                self._log.warning("what was damaged is right again")
            self.error = self.damage = None
            backoff.reset()
            if not self._wake.is_set():
                self._idle.set()

    async def _work(self) -> None:
        try:
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
            self._log.warning("waiting for what is away", error=str(error))
        self.error = str(error)
        if error.code is Code.OVER_LIMIT:
            await asyncio.sleep(OVER_LIMIT_PAUSE_MS / 1000)
        else:
            await backoff.pause(error)

    async def _wait_for_repair(self, error: TeatreeError) -> None:
        if str(error) != self.damage:
            self._log.error("the store is damaged", code=str(error.code), error=str(error))
        self.error = self.damage = str(error)
        self._idle.set()
        await asyncio.sleep(DAMAGE_PAUSE_MS / 1000)
        self._idle.clear()

    @abstractmethod
    async def work(self) -> None:
        """Do all the work there is now; a `RetryError` means: again, a little later."""


def is_shortage(error: BaseException) -> bool:
    """Return whether the process has no memory left, or none for the stack of another thread."""
    return isinstance(error, MemoryError) or "can't start new thread" in str(error)


def is_damage_of_store(error: TeatreeError) -> bool:
    """Return whether an object was changed or deleted; a file of this host is made again by the next manager."""
    is_ours = isinstance(error, DamagedFileError | DamagedVersionError)
    return error.code in (Code.CORRUPT, Code.NOT_FOUND) and not is_ours
