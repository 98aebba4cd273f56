"""Applying batches to a model: how large they are, and what becomes of requests that crashed a manager."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import partial

from teatree.contracts.errors import Code, RetryError
from teatree.contracts.formats.manifest import ModelState
from teatree.contracts.formats.notices import Outcome
from teatree.contracts.formats.outside import outside_outcome
from teatree.contracts.formats.requests import Request
from teatree.contracts.retry import Backoff
from teatree.engine.apply.batch import Applied
from teatree.engine.dead_letter import keep_dead_letter
from teatree.functions.traits import Nature, Traits
from teatree_manager.context import ManagerContext
from teatree_manager.pipeline.retrying_file import RetryingFile
from teatree_manager.pipeline.started_notifier import StartedNotifier
from teatree_manager.waits import WaitingPart

OUTSIDE_MAX = 100_000
"""Requests before a `create_model` whose ids and rejections are kept, the newest ones: bounds memory."""
REOPENS_MAX = 16
"""Times that the database is reopened for one batch until the manager ends; the next one tries smaller parts."""


class Applier:
    """Cuts requests into batches and applies them to the file."""

    def __init__(self, context: ManagerContext, file: RetryingFile, started: StartedNotifier) -> None:
        self._file = file
        self._writer = file.writer
        self._crash_tracker = file.crash_tracker
        self._started = started
        self._log = context.log
        self._outside: deque[Outcome] = deque(maxlen=OUTSIDE_MAX)
        """Outcomes of passed-over requests outside the model's incarnations, which no version holds yet."""

    def next_batch(self, requests: Sequence[Request]) -> Sequence[Request]:
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

    def passes_over(self, request: Request) -> bool:
        """Pass over a request outside an incarnation, which the dispatcher answers; return whether it is one."""
        is_outside = self._writer.state is not ModelState.ACTIVE and self._traits(request).nature is not Nature.BEGINS
        if is_outside:
            self._outside.append(outside_outcome(request))
        return is_outside

    async def apply(self, batch: Sequence[Request]) -> Applied:
        """Apply a batch, in as many tries as it takes; raises if the manager is to leave, or must end."""
        await self._file.wait_for_disk()
        if self._crash_tracker.is_stuck(batch[0]):
            return await self._answer_stuck(batch[0])
        crashes = self._crash_tracker.crashes_of(batch[0])
        if crashes:
            return await self._set_aside(batch[0], crashes)
        await self._file.run(partial(self._crash_tracker.begin, batch))
        if len(batch) == 1 and self._traits(batch[0]).alone:
            self._started.notify(batch[0])
        applied = await self._apply(batch)
        self._outside.clear()
        await self._file.run(partial(self._crash_tracker.end, batch[-1].seq))
        return applied

    async def _apply(self, batch: Sequence[Request]) -> Applied:
        backoff, reopens = Backoff(clock=self._writer.context.clock), 0
        rest = batch
        while True:
            try:
                with self._writer.context.probe.step("manager.apply", requests=rest):
                    applied = await self._file.thread.run(self._writer.apply, rest, tuple(self._outside))
            except RetryError as e:
                if e.code is Code.OVER_LIMIT:
                    reopens += 1
                    if reopens > REOPENS_MAX:
                        raise  # the next manager tries ever smaller parts, which finds the request
                else:
                    why = f"request {batch[0].seq} and those after it wait: {e}"
                    await self._file.wait(WaitingPart.FILE, why, e, backoff)
                rest = await self._file.run(partial(self._writer.rest_of, batch))
            else:
                self._file.resume(WaitingPart.FILE)
                return applied

    async def _answer_stuck(self, request: Request) -> Applied:
        """Reject a request because of which the last manager ended itself, without another try."""
        place = self._crash_tracker.place
        self._log.warning("a request did not end", seq=request.seq, request_id=request.request_id, place=place)
        reached = "" if place is None else f" It was at {place}."
        error = RetryError(
            Code.TIMED_OUT,
            f"{request.function} ran longer than its limit, and could not be interrupted.{reached}",
            hint="Ask for less at once, or have the model's limit raised.",
        )
        return await self._refuse(request, error)

    async def _set_aside(self, request: Request, crashes: int) -> Applied:
        self._log.error("setting a request aside", seq=request.seq, request_id=request.request_id, crashes=crashes)
        error = RetryError(
            Code.SET_ASIDE,
            f"The request took its manager down {crashes} times and was set aside.",
            hint="Change it, or send it again under a new id when the cause is removed.",
        )
        await self._file.run(partial(keep_dead_letter, self._writer.context, request, crashes))
        return await self._refuse(request, error)

    async def _refuse(self, request: Request, error: RetryError) -> Applied:
        applied = await self._file.run(partial(self._writer.set_aside, request, error))
        await self._file.run(partial(self._crash_tracker.end, request.seq))
        return applied

    def _traits(self, request: Request) -> Traits:
        return self._writer.functions.traits(request.function)
