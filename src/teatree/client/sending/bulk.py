"""Bulk sending: requests in atomic batches, outcomes in one notice per version, in bounded memory.

A batch whose acknowledgement is lost is sent again under the same ids. Both copies may then be in the log, so later
requests carry a second group id; what the first group counts beyond its acknowledged requests are copies.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from attrs import evolve, frozen

from teatree.client.sending.group import GroupTracker, ReadRef
from teatree.client.sending.message import Encoded, Message, encode
from teatree.client.sending.receipt import REFUSALS_MAX, Summary
from teatree.client.sending.waiting import PAUSES, may_publish_again
from teatree.contracts.errors import Code, RequestError, RetryError, TeatreeError, error_kind
from teatree.contracts.formats.requests import HEADER_GROUP
from teatree.contracts.retry import Retry
from teatree.messaging.batches import BATCH_MESSAGES_MAX, BatchAck, BatchPublisher

if TYPE_CHECKING:
    from teatree.messaging.bus import Bus

BATCH_BYTES_MAX = 8_000_000
"""Bytes of one batch: it is accepted or refused as one, and stays in memory until then."""
IN_FLIGHT_MAX = 3
"""Batches in flight at once."""

Item = Message | tuple[str, Mapping[str, Any]]
"""A request: a `Message`, or function and arguments."""
BulkProgress = Callable[[int, int], None]
"""Called with the requests accepted, and those whose outcome is known."""


@frozen
class _Batch:
    requests: list[Encoded]
    task: asyncio.Task[BatchAck]


@frozen
class BulkOptions:
    """How `send_many` sends; raises `usage` for a size of batch that NATS does not take."""

    group: str
    wait: Literal["accepted", "done"]
    batch: int
    """Requests in one batch."""
    silence_ms_max: float
    """How long neither an acknowledgement nor an outcome may arrive."""

    def __attrs_post_init__(self) -> None:
        if not 1 <= self.batch <= BATCH_MESSAGES_MAX:
            raise RequestError(
                Code.USAGE, f"A batch has 1 to {BATCH_MESSAGES_MAX} requests, not {self.batch}.", where="batch"
            )


class BulkSender:
    """One call of `send_many`."""

    def __init__(
        self,
        bus: Bus,
        model: str,
        sender: str,
        options: BulkOptions,
        read_ref: ReadRef,
        progress: BulkProgress | None,
    ) -> None:
        self._bus = bus
        self._model = model
        self._sender = sender
        self._options = options
        self._group = options.group
        self._read_ref = read_ref
        self._progress = progress
        self._publisher = BatchPublisher(bus, in_flight_max=IN_FLIGHT_MAX)
        self._in_flight: deque[_Batch] = deque()
        self._trackers: list[GroupTracker] = []

    async def run(self, items: Iterable[Item] | AsyncIterable[Item]) -> Summary:
        """Send all items; return the summary of the group."""
        try:
            await self._open_group(self._group)
            async for requests in self._chunks(items):
                if len(self._in_flight) >= IN_FLIGHT_MAX:
                    await self._await_oldest()
                await self._publish(requests)
            while self._in_flight:
                await self._await_oldest()
            if self._options.wait == "done":
                await self._await_outcomes()
            return self._summary()
        except TeatreeError as e:
            raise self._with_count(e) from e
        finally:
            for batch in self._in_flight:
                batch.task.cancel()
            await self._await_tasks()
            for tracker in self._trackers:
                await tracker.stop()

    # --- from items to batches ---

    async def _chunks(self, items: Iterable[Item] | AsyncIterable[Item]) -> AsyncIterator[list[Encoded]]:
        chunk: list[Encoded] = []
        size_bytes = 0
        async for item in _each(items):
            request = self._encode(item)
            if chunk and (len(chunk) >= self._options.batch or size_bytes + request.size_bytes > BATCH_BYTES_MAX):
                yield chunk
                chunk, size_bytes = [], 0
            chunk.append(request)
            size_bytes += request.size_bytes
        if chunk:
            yield chunk

    def _encode(self, item: Item) -> Encoded:
        message = item if isinstance(item, Message) else Message(item[0], item[1])
        size_bytes_max = self._bus.payload_bytes_max()
        return encode(
            message, self._bus.subjects, self._model, self._sender, size_bytes_max=size_bytes_max, group=self._group
        )

    # --- from batches into the log ---

    async def _publish(self, requests: list[Encoded]) -> None:
        if requests[0].headers[HEADER_GROUP] != self._group:  # encoded before the group changed
            requests = [evolve(r, headers={**r.headers, HEADER_GROUP: self._group}) for r in requests]
        task = await self._publisher.put([(r.subject, r.body, r.headers) for r in requests])
        self._in_flight.append(_Batch(requests, task))

    async def _await_oldest(self) -> None:
        """Wait for the oldest batch in flight; after an error that may pass, send it and those after it again."""
        is_again = False

        async def accepted() -> _Batch:
            nonlocal is_again
            if is_again:
                await self._publish_again()
            is_again = True
            oldest = self._in_flight[0]
            with self._bus.probe.step("client.publish", model=self._model, requests=oldest.requests):
                await asyncio.wait((oldest.task,))
                oldest.task.result()  # raises its error
            return oldest

        silence_ms_max, clock = self._options.silence_ms_max, self._bus.clock
        oldest = await Retry(PAUSES, silence_ms_max, again=may_publish_again, clock=clock).call_async(accepted)
        self._in_flight.popleft()
        tracker = self._trackers[-1]  # everything in flight carries the newest group
        tracker.accepted += len(oldest.requests)
        tracker.accepted_seq = oldest.task.result().last_seq
        self._report()

    async def _publish_again(self) -> None:
        """Send everything in flight again, under a new group."""
        await self._await_tasks()
        await self._open_group(f"{self._trackers[0].group[:58]}-{len(self._trackers) + 1}")
        again = list(self._in_flight)
        self._in_flight.clear()
        self._publisher = BatchPublisher(self._bus, in_flight_max=IN_FLIGHT_MAX)
        for batch in again:
            await self._publish(batch.requests)

    async def _await_tasks(self) -> None:
        """Wait until all batches in flight have ended, with or without an error."""
        if self._in_flight:
            await asyncio.gather(*(batch.task for batch in self._in_flight), return_exceptions=True)

    # --- outcomes ---

    async def _open_group(self, group: str) -> None:
        tracker = GroupTracker(self._bus, self._model, group, self._read_ref, self._report)
        if self._options.wait == "done":
            await tracker.start()
        self._group = group
        self._trackers.append(tracker)

    async def _await_outcomes(self) -> None:
        for tracker in self._trackers:
            if await tracker.wait(self._options.silence_ms_max):
                continue
            raise RetryError(
                Code.TIMED_OUT,
                f"No outcome for {self._options.silence_ms_max:.0f} ms; {tracker.accepted - tracker.accounted:,} of "
                f"{self._sent:,} requests are still to be applied, and will be.",
                where=f"group {tracker.group}",
                hint="`follow` the model to receive their outcomes.",
            )
        *superseded, last = self._trackers
        for tracker in superseded:
            await tracker.subtract_copies(self._options.silence_ms_max)
        await last.read_refs()

    @property
    def _sent(self) -> int:
        return sum(t.accepted for t in self._trackers)

    def _report(self) -> None:
        if self._progress is not None:
            self._progress(self._sent, sum(min(t.accounted, t.accepted) for t in self._trackers))

    def _summary(self) -> Summary:
        refusals = {key: value for tracker in self._trackers for key, value in tracker.refusals.items()}
        applied, already = sum(t.applied for t in self._trackers), sum(t.already for t in self._trackers)
        return Summary(
            model=self._model,
            groups=tuple(tracker.group for tracker in self._trackers),
            sent=self._sent,
            accepted_seq=self._trackers[-1].accepted_seq,
            waited=self._options.wait == "done",
            applied=applied + min(already, 0),  # applied once, and refused again since the model was dropped
            already=max(already, 0),
            refused=sum(t.refused for t in self._trackers),
            refusals=tuple(refusals.values())[:REFUSALS_MAX],
            version=max((t.version for t in self._trackers if t.version is not None), default=None),
        )

    def _with_count(self, error: TeatreeError) -> TeatreeError:
        if not self._sent:
            return error
        message = f"{error.message} Before that, {self._sent:,} requests were accepted."
        return error_kind(error.code)(error.code, message, where=error.where, hint=error.hint)


async def _each(items: Iterable[Item] | AsyncIterable[Item]) -> AsyncIterator[Item]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
        return
    for place, item in enumerate(items):
        if place % BATCH_MESSAGES_MAX == 0:
            await asyncio.sleep(0)  # a long list must not block the event loop
        yield item
