"""Watching a query: its whole answer first, then what changed in it, from version to version.

Core NATS repeats nothing, so a watcher checks that each change continues the answer that it has. Where one does not,
after a lost connection, and when its messages came faster than they were taken, it asks what it missed: the manager
returns the whole answer if that was anything. It also asks three times in each lease, which keeps the query alive.
"""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

from attrs import evolve, field, frozen

from teatree.client.connection import Connection
from teatree.client.direct_read import ask
from teatree.client.notice import named_error
from teatree.client.pages import join_pages, rows_of_reply
from teatree.client.query import VERSION_WAIT_MS_MAX, QueryRequest
from teatree.client.sending.message import json_body
from teatree.contracts.errors import Code, CorruptError, OperatorError, RetryError, TeatreeError
from teatree.contracts.formats.live import HEADER_LIVE, RENEW, WATCH_FUNCTION, LiveKind, LiveNotice, Watching
from teatree.contracts.formats.live import read_live_notice as read_notice
from teatree.contracts.retry import Pauses, Retry

if TYPE_CHECKING:
    from teatree.datasets.dataset import Dataset
    from teatree.messaging.bus import Bus
    from teatree.messaging.message import ReceivedMessage, Subscription

RENEWALS = 3
"""Renewals in the time of one lease."""
CALLED_WITHIN_MS = 500
"""Within so many milliseconds after a manager's call all watchers have renewed: not all at once."""
PAUSES = Pauses(50, 2_000)
"""Waits while a model's manager cannot be reached, or has too many reads."""
PENDING_MAX = 1_000
PENDING_BYTES_MAX = 64_000_000
"""Messages, and their bytes, that wait for a slow watcher; then it reads anew."""
_PASSING = frozenset({Code.UNAVAILABLE, Code.TIMED_OUT, Code.BUSY})


@frozen
class AnswerChange:
    """The whole answer of a watched query, or what changed in it."""

    version: int
    """The version that has the answer after it."""
    from_version: int | None
    """The version whose answer it continues; None: `added` is the whole answer, in the place of what was before."""
    key: tuple[str, ...]
    """The columns that identify a row; without any rows are counted, and a changed row is removed and added."""
    added: Dataset = field(repr=False)
    changed: Dataset = field(repr=False)
    """With a key: rows in the place of those with their keys."""
    removed: Dataset = field(repr=False)

    @classmethod
    def whole(cls, watching: Watching, rows: Dataset) -> AnswerChange:
        """Return a whole answer as the change that puts it in the place of what was before."""
        nothing = _part(rows, 0, 0)
        return cls(watching.version, None, watching.key, rows, nothing, nothing)

    @classmethod
    def of_notice(cls, notice: LiveNotice, held_version: int) -> AnswerChange:
        """Return the change in a notice whose rows are an Arrow stream; raises `corrupt` if it is damaged."""
        where = f"change of {notice.model}"
        rows = join_pages([notice.body], is_arrow=True, where=where)
        sizes = [notice.counts.get(name, 0) for name in ("added", "changed", "removed")]
        if sum(sizes) != len(rows):
            raise CorruptError(f"A change announces {sum(sizes)} rows and has {len(rows)}.", where=where)
        added, changed, removed = (_part(rows, sum(sizes[:place]), size) for place, size in enumerate(sizes))
        return cls(notice.version, held_version, notice.key, added, changed, removed)

    @property
    def is_whole(self) -> bool:
        """Whether it is the whole answer: the first one, or one that had to be read anew."""
        return self.from_version is None


async def watch(
    connection: Connection, model: str, query: QueryRequest, timeout_ms: float
) -> AsyncGenerator[AnswerChange, None]:
    """Yield the answer of a query and then its changes, without end; raises the error that ends it."""
    watcher = _Watcher(connection, model, query)
    with connection.bus.probe.step("client.watch", model=model):
        first = await watcher.ask(timeout_ms)
        await watcher.subscribe()
    try:
        yield await watcher.ask_again() or first
        while True:
            change = await watcher.next()
            if change is not None:
                yield change
    finally:
        await watcher.close()


class _Watcher:
    """One watcher: what it holds, and its subscription."""

    def __init__(self, connection: Connection, model: str, query: QueryRequest) -> None:
        self._connection = connection
        self._bus: Bus = connection.bus
        self._clock = connection.clock
        self._model = model
        self._args = {**query.args()}
        self._min_version = max(query.min_version or 0, connection.seen_version(model) or 0)
        self._held: Watching | None = None
        self._given_version = 0
        """The version of the last change that was given out: renewals move the one that is held further."""
        self._messages: Subscription | None = None
        self._end_calls: Any = None
        self._renew_at_ms = 0.0

    # --- asking ---

    async def ask(self, timeout_ms: float) -> AnswerChange:
        """Register; return the whole answer."""
        self._held = None
        retry = Retry(PAUSES, timeout_ms, again=lambda e: e.code is Code.BUSY, clock=self._clock)
        change = await retry.call_async(lambda: self._ask(timeout_ms))
        if change is None:
            raise CorruptError("A watcher that holds nothing was answered that it misses nothing.", where=self._model)
        return change

    async def ask_again(self) -> AnswerChange | None:
        """Renew, however long no manager can be reached; return the whole answer if something was missed."""
        retry = Retry(PAUSES, again=_passes, clock=self._clock)
        return await retry.call_async(lambda: self._ask(VERSION_WAIT_MS_MAX))

    async def _ask(self, timeout_ms: float) -> AnswerChange | None:
        args = dict(self._args)
        if self._held is not None:
            args |= {"series": self._held.series, "held_version": self._held.version}
        elif self._min_version:
            args |= {"min_version": self._min_version, "wait_ms": int(min(timeout_ms, VERSION_WAIT_MS_MAX))}
        subject = self._bus.subjects.query(self._model, WATCH_FUNCTION)
        reply = await ask(self._bus, subject, json_body(args), timeout_ms)
        found = Watching.of_header(reply.headers.get(HEADER_LIVE, ""), subject)
        self._renew_at_ms = self._clock.monotonic_ms() + found.lease_ms / RENEWALS * random.uniform(0.7, 1)  # noqa: S311
        missed = not found.current
        rows = await rows_of_reply(self._connection, reply, f"answer of {self._model}") if missed else None
        self._held = found
        if rows is None:
            return None
        self._given_version = found.version
        return AnswerChange.whole(found, rows)

    # --- receiving ---

    async def subscribe(self) -> None:
        """Receive the changes from now on."""
        subjects, query = self._bus.subjects, self._holding.query
        messages = await self._bus.subscribe(
            subjects.notify_watch(self._model, query), pending_max=PENDING_MAX, pending_bytes_max=PENDING_BYTES_MAX
        )
        self._messages = messages
        self._end_calls = await self._bus.subscribe_sink(subjects.notify_watch(self._model, RENEW), messages.push)

    @property
    def _holding(self) -> Watching:
        if self._held is None:
            raise AssertionError
        return self._held

    async def next(self) -> AnswerChange | None:
        """Return the next change; None if there is none yet."""
        if self._messages is None:
            raise AssertionError
        try:
            message = self._messages.pop()
            if message is None:
                message = await self._messages.next(max(1, round(self._renew_at_ms - self._clock.monotonic_ms())))
        except RetryError:  # nothing came in time, messages were dropped, or the connection was lost
            return await self.ask_again()
        return await self._take(message)

    async def _take(self, message: ReceivedMessage) -> AnswerChange | None:
        notice = read_notice(message.subject, message.headers, message.body)
        held = self._holding
        is_series = notice.series == held.series
        match notice.kind:
            case LiveKind.ENDED:
                raise named_error(notice.error or {})
            case LiveKind.RENEW:
                await self._clock.sleep_async(random.uniform(0, CALLED_WITHIN_MS) / 1000)  # noqa: S311  no secret
                return await self.ask_again()
            case _ if is_series and notice.version <= held.version:
                return None  # it is in the answer that was read after it was published
            case LiveKind.CHANGE if is_series and notice.since <= held.version <= notice.through:
                return self._changed(notice, held)
            case _:
                return await self.ask_again()

    def _changed(self, notice: LiveNotice, held: Watching) -> AnswerChange:
        change = AnswerChange.of_notice(notice, self._given_version)
        self._held = evolve(held, version=notice.version)
        self._given_version = notice.version
        return change

    async def close(self) -> None:
        """End the subscription; the query is forgotten when its lease ends."""
        try:
            if self._end_calls is not None:
                await self._end_calls()
            if self._messages is not None:
                await self._messages.close()
        except (RetryError, OperatorError):  # the connection is lost or closed, and the subscription with it
            return


def _passes(error: TeatreeError) -> bool:
    return error.code in _PASSING


def _part(rows: Dataset, start: int, size: int) -> Dataset:
    from teatree.datasets.dataset import Dataset  # noqa: PLC0415 - Arrow, only for rows

    return Dataset(rows.schema, rows.to_arrow().slice(start, size))
