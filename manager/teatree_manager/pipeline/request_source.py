"""Reading a model's requests from the log, checked to be the log in which the model counts."""

from __future__ import annotations

import asyncio

from teatree.contracts.errors import RetryError
from teatree.contracts.formats.requests import LogPosition
from teatree.contracts.retry import Backoff
from teatree.contracts.settings import LimitSettings
from teatree.messaging.log import LogReader, LogSlice, WakeHints
from teatree_manager.context import ManagerContext
from teatree_manager.pipeline.log_check import LogCheck
from teatree_manager.waits import WaitingPart


class RequestSource:
    """Reads the requests that follow a position, and waits for them until it is stopped."""

    def __init__(self, context: ManagerContext, reader: LogReader, log_check: LogCheck, hints: WakeHints) -> None:
        self._context = context
        self._reader = reader
        self._log_check = log_check
        self._hints = hints
        self._log = context.log
        self._stopping = asyncio.Event()

    @property
    def is_stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stopping.is_set()

    def stop(self) -> None:
        """End every wait for requests, now and later."""
        self._stopping.set()
        self.wake()

    def wake(self) -> None:
        """End the present wait for requests."""
        self._hints.event.set()

    def begin_after(self, position: LogPosition) -> int:
        """Return the sequence after which a model reads that has applied all up to `position`."""
        return self._log_check.begin_after(position)

    async def read(self, after: int, position: LogPosition, limits: LimitSettings, *, wait: bool = False) -> LogSlice:
        """Return what follows `after`; `position` is the last request that was read or applied before.

        With `wait` it waits for a hint first, `poll_ms` at most. Returns nothing once it is stopped.
        """
        waits = self._context.waits
        if wait:
            await self._context.clock.wait_async(self._hints.event, self._context.settings.manager.poll_ms / 1000)
        self._hints.take()
        backoff = Backoff(clock=self._context.clock)
        while not self._stopping.is_set():
            try:
                losses = self._log_check.losses
                if waits.requests is not None:
                    await self._log_check.at(position)  # a deleted stream looks like an unavailable one
                found = await self._reader.read(
                    after, requests_max=limits.batch_requests_max, bytes_max=limits.read_ahead_bytes_max
                )
                await self._log_check.at(position)
            except RetryError as e:
                why = f"the log cannot be read: {e}"
                if waits.set(WaitingPart.LOG, why):
                    self._log.warning("waiting", why=why)
                await backoff.pause(e)
            else:
                if losses != self._log_check.losses:
                    continue
                waits.clear(WaitingPart.LOG)
                return found
        waits.clear(WaitingPart.LOG)  # a manager that leaves waits no more
        return LogSlice([], 0)
