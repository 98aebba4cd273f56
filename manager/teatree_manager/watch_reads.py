"""The direct read `watch`: its arguments, and the wait for its version; other reads are passed on."""

from __future__ import annotations

from collections.abc import Mapping

from teatree.contracts.errors import Code, RequestError, RetryError
from teatree.contracts.formats.live import WATCH_FUNCTION
from teatree.contracts.formats.requests import read_request
from teatree.engine.writer import Writer
from teatree.functions.arguments import Call, CallContext
from teatree.functions.query import read_query
from teatree.messaging.asked_reads import AskedRead
from teatree.messaging.service import QueryHandler
from teatree_manager.followers.local_file import LocalFollower
from teatree_manager.live.live_queries import LiveQueries, Registration
from teatree_manager.reads import WAIT_MS_DEFAULT, WAIT_MS_MAX


class WatchReads:
    """Answers the reads of those that watch queries."""

    def __init__(self, live: LiveQueries, writer: Writer, local: LocalFollower, others: QueryHandler) -> None:
        """`others` answers all other reads."""
        self._live = live
        self._writer = writer
        self._local = local
        self._others = others

    async def answer(self, read: AskedRead) -> tuple[bytes, Mapping[str, str]]:
        """Return the answer to one read."""
        if read.function != WATCH_FUNCTION:
            return await self._others(read)
        with self._writer.context.probe.step("manager.watch", headers=read.headers):
            wanted, wait_ms = self._registration(read)
            await self._until_served(wanted.min_version, wait_ms)
            return await self._live.answer(wanted)

    def _registration(self, read: AskedRead) -> tuple[Registration, int]:
        context = self._writer.context
        model, now = context.chain.model, context.clock.now()
        request = read_request(model, read.function, 0, now, dict(read.headers), read.body)
        if request.invalid is not None:
            raise request.invalid
        call = Call(request, CallContext(self._writer.limits, context.sources))
        wait_ms = call.integer("wait_ms", WAIT_MS_DEFAULT)
        if wait_ms > WAIT_MS_MAX:
            raise RequestError(Code.OUT_OF_RANGE, f"'wait_ms' is 0 to {WAIT_MS_MAX}, not {wait_ms}.", where="wait_ms")
        query = read_query(call, self._writer.limits)
        wanted = Registration(
            query, call.integer("min_version", 0), call.text("series", ""), call.integer("held_version", 0), read.client
        )
        call.finish()
        return wanted, wait_ms

    async def _until_served(self, version: int, wait_ms: int) -> None:
        model = self._writer.context.chain.model
        if self._local.is_dropped:
            raise RequestError(Code.UNKNOWN_MODEL, f"There is no model {model!r}.", where="model")
        if not await self._local.wait_for(max(version, 1), wait_ms):
            raise RetryError(
                Code.TIMED_OUT,
                f"Version {version} was not served within {wait_ms} ms; {self._local.served} is the newest here.",
                where="min_version",
                hint=f"It waits: {self._local.error}" if self._local.error else "Try again.",
            )
