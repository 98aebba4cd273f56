"""The pipeline of one model: read, apply, capture, ship; the next batch is applied while the last one is shipped.

Concurrency: the event loop reads the log and talks to NATS. One thread owns the file (apply, capture, advance_base),
one ships. A capture waits until the version before it has its manifest, so at most one version is on its way.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from pathlib import Path

from teatree.contracts.errors import OperatorError
from teatree.contracts.formats.manifest import ModelState
from teatree.contracts.formats.requests import Request
from teatree.engine.publish.prepared import PreparedVersion
from teatree.engine.publish.shipping import ship
from teatree.messaging.log import LogSlice
from teatree_manager.manager_tasks import ManagerTasks
from teatree_manager.outcome_publisher import OutcomePublisher
from teatree_manager.pipeline.applier import Applier
from teatree_manager.pipeline.request_source import RequestSource
from teatree_manager.pipeline.retrying_file import RetryingFile
from teatree_manager.waits import WaitingPart

SPOOLED_PACKS = 8
"""Packs kept locally after they were shipped: the local version file is patched from them."""


class Pipeline:
    """Applies the requests of the log and publishes versions of them."""

    def __init__(
        self,
        source: RequestSource,
        applier: Applier,
        file: RetryingFile,
        followers: ManagerTasks,
        outcomes: OutcomePublisher,
    ) -> None:
        """Each version that has its manifest goes to `followers` and `outcomes`."""
        self._source = source
        self._applier = applier
        self._file = file
        self._writer = file.writer
        self._clock = file.writer.context.clock
        self._followers = followers
        self._outcomes = outcomes
        self._ship_thread = ThreadPoolExecutor(1, thread_name_prefix="ship")
        self._shipping: asyncio.Task[None] | None = None
        self._has_looked = False
        """Whether the log was read at least once."""
        self.last_request_ms = self._clock.monotonic_ms()
        self.is_applying = False
        """Whether a batch is being applied or captured: such a manager is not idle."""

    @property
    def is_idle(self) -> bool:
        """Whether no accepted request waits for its version, as far as the log was read."""
        is_shipping = self._shipping is not None and not self._shipping.done()
        return self._has_looked and not self.is_applying and not is_shipping

    async def run(self, left: PreparedVersion | None) -> None:
        """Apply and ship until the source is stopped, first what a crash `left` unshipped.

        Returns too when there is no model after a request, or none and no request: the dispatcher first answers what
        follows, up to the next `create_model`; and when a request has changed the model's app. Raises `fenced` when
        another writer is ahead, and errors that need an operator.
        """
        if left is not None:
            self._begin_shipping(left)
        try:
            if left is None or self._writer.state is not ModelState.DROPPED:  # else dropped right before a crash
                await self._carry()
            await self._await_shipped()
        finally:
            if self._shipping is not None:  # the next manager finds in the chain whether it succeeded
                self._shipping.cancel()
                await asyncio.gather(self._shipping, return_exceptions=True)

    def close(self) -> None:
        """End the shipping thread, after what it does."""
        self._ship_thread.shutdown()

    async def _carry(self) -> None:
        async for requests in self._slices():
            rest: Sequence[Request] = requests
            while rest and not self._source.is_stopping:
                batch = self._applier.next_batch(rest)
                rest = rest[len(batch) :]
                if self._applier.passes_over(batch[0]):
                    continue
                await self._one_version(batch)
                if self._writer.state is not ModelState.ACTIVE or self._writer.is_outdated:
                    return

    async def _one_version(self, batch: Sequence[Request]) -> None:
        self.is_applying = True
        try:
            with self._writer.context.probe.step("manager.batch", requests=batch) as step:
                applied = await self._applier.apply(batch)
                step.add(version=applied.version)
                await self._await_shipped()
                prepared = await self._file.run(
                    lambda: self._writer.capture(applied, self._outcomes.announced_version),
                )
        finally:
            self.is_applying = False
            self.last_request_ms = self._clock.monotonic_ms()
        self._begin_shipping(prepared)

    def _begin_shipping(self, prepared: PreparedVersion) -> None:
        """Ship a captured version behind the next batch."""
        self._shipping = asyncio.create_task(self._ship(prepared))
        self._shipping.add_done_callback(lambda _: self._source.wake())  # a failure ends the wait for requests

    async def _await_shipped(self) -> None:
        if self._shipping is not None:
            shipping, self._shipping = self._shipping, None
            await shipping

    async def _ship(self, prepared: PreparedVersion) -> None:
        loop, version = asyncio.get_running_loop(), prepared.manifest.version
        with self._writer.context.probe.step("manager.ship", version=version):
            run = copy_context().run  # its steps belong to this one
            call = partial(loop.run_in_executor, self._ship_thread, run, ship, prepared, self._writer.context)
            shipped = await self._file.repeat(WaitingPart.SHIP, call, f"version {version} waits to be shipped: ")
        self._followers.follow(shipped.manifest, shipped.entries, shipped.archive)
        await self._outcomes.put(shipped.manifest, shipped.entries)
        await self._file.thread.run(self._writer.advance_base, shipped)
        if shipped.captured is not None:
            await self._file.run(partial(_trim_spool, self._writer.context.folder.spool))

    async def _slices(self) -> AsyncIterator[Sequence[Request]]:
        """Yield what follows in the log, reading ahead while the caller works."""
        position = await self._file.thread.run(lambda: self._writer.applied_position)
        after = self._source.begin_after(position)
        ahead = asyncio.create_task(self._source.read(after, position, self._writer.limits))
        try:
            while not self._source.is_stopping:
                found = await self._checked(ahead)
                self._has_looked = True
                if not found.requests and self._writer.state is not ModelState.ACTIVE:
                    return
                if found.requests:
                    position = found.requests[-1].position
                    after = position.seq
                    self.last_request_ms = self._clock.monotonic_ms()
                read = self._source.read(after, position, self._writer.limits, wait=not found.requests)
                ahead = asyncio.create_task(read)
                if found.requests:
                    yield found.requests
                elif self._shipping is not None and self._shipping.done():
                    await self._await_shipped()
        finally:
            ahead.cancel()

    async def _checked(self, ahead: asyncio.Task[LogSlice]) -> LogSlice:
        """Return what was read ahead. If the log is not ours any more, what was applied from it is published first.

        So the newest manifest shows the operator how far the model has applied the log.
        """
        try:
            return await ahead
        except OperatorError:
            await self._await_shipped()
            raise


def _trim_spool(spool: Path) -> None:
    for pack in sorted(spool.glob("*"))[:-SPOOLED_PACKS]:
        pack.unlink()
