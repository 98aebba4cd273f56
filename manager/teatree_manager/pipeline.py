"""The pipeline of one model: read, apply, capture, ship; the next batch is applied while the last one is shipped.

Concurrency: the event loop reads the log and talks to NATS. One thread owns the file (apply, capture, advance_base),
one ships. A capture waits until the version before it has its manifest, so at most one version is on its way.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TypeVar

import structlog

from teatree.contracts.errors import Code, OperatorError, RetryError
from teatree.contracts.manifest import ModelState
from teatree.contracts.notices import Outcome
from teatree.contracts.outside import outside_outcome
from teatree.contracts.requests import LogPosition, Request
from teatree.contracts.retry import Backoff
from teatree.engine.batch import Applied
from teatree.engine.dead_letter import keep_dead_letter
from teatree.engine.prepared_version import PreparedVersion
from teatree.engine.shipping import ship
from teatree.engine.writer import Writer
from teatree.functions.traits import Nature, Traits
from teatree.messaging.log import LogReader, LogSlice, WakeHints
from teatree.storage.disk import translating_disk_full
from teatree_manager.crash_tracker import CrashTracker
from teatree_manager.log_check import LogCheck

T = TypeVar("T")
OUTSIDE_MAX = 100_000
"""Requests before a `create_model` whose ids and rejections are kept, the newest ones: bounds memory."""
SPOOLED_PACKS = 8
"""Packs kept locally after they were shipped: the local version file is patched from them."""
GAVE_UP_MAX = 16
"""Times that the database is reopened for one batch until the manager ends; the next one tries smaller parts."""
CLOSE_MS_MAX = 20_000
"""Milliseconds that work on the file may take to end when its manager leaves."""


class _Part(Enum):
    """A part of the pipeline that can wait independently of the others."""

    LOG = "log"
    DISK = "disk"
    FILE = "file"
    SHIP = "ship"


class Pipeline:
    """Applies the requests of the log and publishes versions of them."""

    def __init__(
        self,
        writer: Writer,
        reader: LogReader,
        log_check: LogCheck,
        hints: WakeHints,
        crash_tracker: CrashTracker,
        poll_ms: int,
        announced_version: Callable[[], int],
        started: Callable[[Request], None],
    ) -> None:
        self._writer = writer
        self._reader = reader
        self._log_check = log_check
        self._hints = hints
        self._crash_tracker = crash_tracker
        self._poll_ms = poll_ms
        self._announced_version = announced_version
        self._started = started
        self._file_thread = ThreadPoolExecutor(1, thread_name_prefix="file")
        self._ship_thread = ThreadPoolExecutor(1, thread_name_prefix="ship")
        self._shipping: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._log = structlog.get_logger().bind(model=writer.context.chain.model)
        self.last_request_ms = time.monotonic() * 1000
        self.is_applying = False
        """Whether a batch is being applied or captured: such a manager is not idle."""
        self._has_looked = False
        """Whether the log was read at least once."""
        self._waiting: dict[_Part, str] = {}
        self._outside: deque[Outcome] = deque(maxlen=OUTSIDE_MAX)
        """Outcomes of passed-over requests outside the model's incarnations, which no version holds yet."""
        self.make_room: Callable[[], Awaitable[None]] | None = None
        """Deletes what need not be on the disk."""

    @property
    def waiting_for(self) -> str | None:
        """Why requests wait; None while they do not."""
        return "; ".join(self._waiting.values()) or None

    @property
    def is_idle(self) -> bool:
        """Whether no accepted request waits for its version, as far as the log was read."""
        is_shipping = self._shipping is not None and not self._shipping.done()
        return self._has_looked and not self.is_applying and not is_shipping

    @property
    def idle_ms(self) -> float:
        """Milliseconds since the last request if the pipeline is idle, else 0."""
        return time.monotonic() * 1000 - self.last_request_ms if self.is_idle else 0.0

    async def in_file_thread(self, work: Callable[..., T], *arguments: object) -> T:
        """Run work on the thread that owns the file; raises `disk_full` or `unavailable` if the disk refuses it."""

        def run() -> T:
            with translating_disk_full("The model's folder", self._writer.context.folder.root):
                return work(*arguments)

        return await asyncio.get_running_loop().run_in_executor(self._file_thread, run)

    def stop(self) -> None:
        """Finish the current batch and version, then end."""
        self._stopping.set()
        self._hints.event.set()

    async def run(self, shipped: Callable[[PreparedVersion], object]) -> None:
        """Apply and ship until `stop` is called; `shipped` is awaited for each version that has its manifest.

        Returns too when there is no model after a request, or none and no request: the dispatcher first answers what
        follows, up to the next `create_model`. Raises `fenced` when another writer is ahead, and errors that need an
        operator.
        """
        if self._shipping is not None and self._writer.state is ModelState.DROPPED:  # dropped right before a crash
            await self._await_shipped()
            return
        try:
            await self._carry(shipped)
        finally:
            if self._shipping is not None:  # the next manager finds in the chain whether it succeeded
                self._shipping.cancel()
                await asyncio.gather(self._shipping, return_exceptions=True)

    async def _carry(self, shipped: Callable[[PreparedVersion], object]) -> None:
        async for requests in self._slices():
            rest: Sequence[Request] = requests
            while rest and not self._stopping.is_set():
                batch = self._next_batch(rest)
                rest = rest[len(batch) :]
                if not self._is_ours(batch[0]):
                    self._outside.append(outside_outcome(batch[0]))
                    continue
                await self._one_version(batch, shipped)
                if self._writer.state is not ModelState.ACTIVE:
                    await self._await_shipped()
                    return
        await self._await_shipped()

    async def _one_version(self, batch: Sequence[Request], shipped: Callable[[PreparedVersion], object]) -> None:
        self.is_applying = True
        try:
            applied = await self._apply(batch)
            await self._await_shipped()
            prepared = await self._retrying(lambda: self._writer.capture(applied, self._announced_version()))
        finally:
            self.is_applying = False
            self.last_request_ms = time.monotonic() * 1000
        self.begin_shipping(prepared, shipped)

    def begin_shipping(self, prepared: PreparedVersion, shipped: Callable[[PreparedVersion], object]) -> None:
        """Ship a captured version behind the next batch."""
        self._shipping = asyncio.create_task(self._ship(prepared, shipped))
        self._shipping.add_done_callback(lambda _: self._hints.event.set())  # a failure ends the wait for requests

    async def _await_shipped(self) -> None:
        if self._shipping is not None:
            shipping, self._shipping = self._shipping, None
            await shipping

    async def _ship(self, prepared: PreparedVersion, shipped: Callable[[PreparedVersion], object]) -> None:
        backoff = Backoff()
        loop = asyncio.get_running_loop()
        while True:
            try:
                await loop.run_in_executor(self._ship_thread, ship, prepared, self._writer.context)
                break
            except RetryError as e:
                await self._wait(
                    _Part.SHIP, f"version {prepared.manifest.version} waits to be shipped: {e}", e, backoff
                )
        self._resume(_Part.SHIP)
        self._writer.context.failpoint("manager.ship.before_shipped")
        result = shipped(prepared)
        if asyncio.iscoroutine(result):
            await result
        await self.in_file_thread(self._writer.advance_base, prepared)
        if prepared.capture is not None:
            await self._retrying(partial(_trim_spool, prepared.capture.path.parent))

    async def _slices(self) -> AsyncIterator[Sequence[Request]]:
        """Yield what follows in the log, reading ahead while the caller works."""
        position = await self.in_file_thread(lambda: self._writer.applied_position)
        after = self._log_check.begin_after(position)
        ahead = asyncio.create_task(self._read(after, position))
        try:
            while not self._stopping.is_set():
                found = await self._checked(ahead)
                self._has_looked = True
                if not found.requests and self._writer.state is not ModelState.ACTIVE:
                    return
                if found.requests:
                    position = found.requests[-1].position
                    after = position.seq
                    self.last_request_ms = time.monotonic() * 1000
                ahead = asyncio.create_task(self._read(after, position, wait=not found.requests))
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

    async def _read(self, after: int, position: LogPosition, *, wait: bool = False) -> LogSlice:
        """Return what follows `after`; `position` is the last request that was read or applied before."""
        limits = self._writer.limits
        if wait:
            await self._hints.wait(self._poll_ms)
        self._hints.take()
        backoff = Backoff()
        while not self._stopping.is_set():
            try:
                losses = self._log_check.losses
                if self._waiting:
                    await self._log_check.at(position)  # a deleted stream looks like an unavailable one
                found = await self._reader.read(
                    after, requests_max=limits.batch_requests_max, bytes_max=limits.read_ahead_bytes_max
                )
                await self._log_check.at(position)
            except RetryError as e:
                self._wait_because(_Part.LOG, f"the log cannot be read: {e}")
                await backoff.pause(e)
            else:
                if losses != self._log_check.losses:
                    continue
                self._resume(_Part.LOG)
                return found
        self._resume(_Part.LOG)  # a manager that leaves waits no more
        return LogSlice([], 0)

    def _next_batch(self, requests: Sequence[Request]) -> Sequence[Request]:
        """Return the front of these requests that goes into one version."""
        limits = self._writer.limits
        size_bytes = 0
        for place, request in enumerate(requests):
            size_bytes += len(request.body)
            alone = self._traits(request).alone or self._writer.state is not ModelState.ACTIVE
            if alone or (place and size_bytes > limits.batch_bytes_max):
                front = requests[: max(place, 1)]
                return front[: self._crash_tracker.limit(front)]
        return requests[: self._crash_tracker.limit(requests)]

    def _traits(self, request: Request) -> Traits:
        return self._writer.context.functions.traits(request.function)

    def _is_ours(self, request: Request) -> bool:
        """Return whether a request lies within an incarnation, or begins one; the dispatcher answers the others."""
        return self._writer.state is ModelState.ACTIVE or self._traits(request).nature is Nature.BEGINS

    async def _apply(self, batch: Sequence[Request]) -> Applied:
        await self._wait_for_disk()
        if self._crash_tracker.is_stuck(batch[0]):
            return await self._answer_stuck(batch[0])
        crashes = self._crash_tracker.crashes_of(batch[0])
        if crashes:
            return await self._set_aside(batch[0], crashes)
        await self._retrying(partial(self._crash_tracker.begin, batch))
        if len(batch) == 1 and self._traits(batch[0]).alone:
            self._started(batch[0])
        backoff, gave_up = Backoff(), 0
        rest = batch
        while True:
            try:
                applied = await self.in_file_thread(self._writer.apply, rest, tuple(self._outside))
            except RetryError as e:
                if e.code is Code.OVER_LIMIT:
                    gave_up += 1
                    if gave_up > GAVE_UP_MAX:
                        raise  # the next manager tries ever smaller parts, which finds the request
                    rest = await self._retrying(partial(self._writer.rest_of, batch))
                    continue
                await self._wait(_Part.FILE, f"request {batch[0].seq} and those after it wait: {e}", e, backoff)
                rest = await self._retrying(partial(self._writer.rest_of, batch))
            else:
                self._resume(_Part.FILE)
                self._outside.clear()
                await self._retrying(partial(self._crash_tracker.end, batch[-1].seq))
                return applied

    async def _answer_stuck(self, request: Request) -> Applied:
        """Reject a request because of which the last manager ended itself, without another try."""
        self._log.warning("a request did not end", seq=request.seq, request_id=request.request_id)
        error = RetryError(
            Code.TIMED_OUT,
            f"{request.function} ran longer than its limit, and could not be interrupted.",
            hint="Ask for less at once, or have the model's limit raised.",
        )
        applied = await self._retrying(lambda: self._writer.set_aside(request, error))
        await self._retrying(partial(self._crash_tracker.end, request.seq))
        return applied

    async def _set_aside(self, request: Request, crashes: int) -> Applied:
        self._log.error("setting a request aside", seq=request.seq, request_id=request.request_id, crashes=crashes)
        error = RetryError(
            Code.SET_ASIDE,
            f"The request took its manager down {crashes} times and was set aside.",
            hint="Change it, or send it again under a new id when the cause is removed.",
        )
        await self._retrying(partial(keep_dead_letter, self._writer.context, request, crashes))
        applied = await self._retrying(lambda: self._writer.set_aside(request, error))
        await self._retrying(partial(self._crash_tracker.end, request.seq))
        return applied

    async def _retrying(self, work: Callable[[], T]) -> T:
        backoff = Backoff()
        while True:
            try:
                done = await self.in_file_thread(work)
            except RetryError as e:
                await self._wait(_Part.FILE, str(e), e, backoff)
            else:
                self._resume(_Part.FILE)
                return done

    async def _wait_for_disk(self) -> None:
        """Wait while the disk is nearly full, even after old files are deleted: requests in the log are safe there."""
        backoff = Backoff()
        floor = self._writer.limits.disk_free_bytes_min
        while (free := _free_bytes(self._writer.context.folder.root)) < floor and not self._stopping.is_set():
            if self.make_room is not None:
                await self.make_room()
                free = _free_bytes(self._writer.context.folder.root)
                if free >= floor:
                    break
            self._wait_because(_Part.DISK, f"less than {_mb(floor)} is free on the disk of the data folder")
            await backoff.pause()
        self._resume(_Part.DISK)

    async def _wait(self, part: _Part, why: str, error: RetryError, backoff: Backoff) -> None:
        """Wait for an unavailable part; raise if the manager is to leave: its successor continues from the log."""
        self._wait_because(part, why)
        if self._stopping.is_set():
            await self.in_file_thread(self._crash_tracker.clear)
            raise error
        if error.code is Code.DISK_FULL and self.make_room is not None:
            await self.make_room()
        await backoff.pause(error)

    def _wait_because(self, part: _Part, why: str) -> None:
        if why != self._waiting.get(part):
            self._log.warning("waiting", why=why)
        self._waiting[part] = why

    def _resume(self, part: _Part) -> None:
        self._waiting.pop(part, None)

    def close(self, wait_ms_max: int = CLOSE_MS_MAX) -> None:
        """Close the file and end the threads; work that still runs on the file is interrupted.

        Raises TimeoutError when that had no effect: a thread cannot be ended, only the process.
        """
        self._writer.leave()
        self._file_thread.submit(self._writer.close).result(wait_ms_max / 1000)
        self._file_thread.shutdown()
        self._ship_thread.shutdown()


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / 1_000_000:.3g} MB" if size_bytes < 1_000_000 else f"{size_bytes // 1_000_000} MB"


def _trim_spool(spool: Path) -> None:
    for pack in sorted(spool.iterdir())[:-SPOOLED_PACKS]:
        pack.unlink()
