"""The handler of direct reads.

`query`, and the queries and pure functions of the model's app, run on the newest local version, in a worker process;
`health` and `functions` are answered here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from attrs import frozen

from teatree.contracts.errors import Code, RequestError, RetryError
from teatree.contracts.formats.codec import dump_json
from teatree.contracts.formats.requests import (
    CONTENT_JSON,
    FUNCTIONS_FUNCTION,
    HEADER_CONTENT_TYPE,
    HEALTH_FUNCTION,
    Request,
    read_request,
)
from teatree.contracts.settings import LimitSettings
from teatree.engine.errors import DamagedVersionError
from teatree.engine.writer import Writer
from teatree.functions.arguments import Call, CallContext
from teatree.functions.query import Query, read_query
from teatree.functions.sources import Sources
from teatree.functions.traits import Function, Nature
from teatree.messaging.asked_reads import AskedRead
from teatree_manager.apps.app_listing import list_functions
from teatree_manager.apps.app_watch import AppWatch
from teatree_manager.followers.local_file import LocalFollower
from teatree_manager.health import Health
from teatree_manager.read_workers.app_call import AppCall, OtherCodeError
from teatree_manager.read_workers.pool import Asked, ReadPool
from teatree_manager.read_workers.stored_pages import StoredPages

WAIT_MS_DEFAULT = 5_000
"""Milliseconds that a read waits for its `min_version`."""
WAIT_MS_MAX = 60_000
LONG_BODY_BYTES = 100_000
"""A longer body is parsed on a thread: it must not hold the event loop."""
_JSON = {HEADER_CONTENT_TYPE: CONTENT_JSON}


@frozen
class DirectRead:
    """What a direct read asks for."""

    work: Query | AppCall
    time_ms_max: int
    min_version: int
    wait_ms: int


class DirectReads:
    """The handler behind a model's query subjects."""

    def __init__(
        self,
        writer: Writer,
        sources: Sources,
        pool: ReadPool,
        local: LocalFollower,
        health: Health,
        page_bytes_max: int,
    ) -> None:
        """Read by the writer's limits; `page_bytes_max` is what fits into one reply."""
        self._chain = writer.context.chain
        self._writer = writer
        self._clock = writer.context.clock
        self._sources = sources
        self._pool = pool
        self._local = local
        self._health = health
        self._page_bytes_max = page_bytes_max
        self.app_watch = AppWatch(writer, self._clock)
        """Notices when this manager is to leave for newer code of the app."""
        self._running = 0
        self._last_ms = self._clock.monotonic_ms()

    @property
    def last_ms(self) -> float:
        """When something was read last, by the monotonic clock: a model that is read is not idle."""
        return self._clock.monotonic_ms() if self._running else self._last_ms

    async def answer(self, read: AskedRead) -> tuple[bytes, Mapping[str, str]]:
        """Return the answer to one read."""
        if read.function == HEALTH_FUNCTION:
            return dump_json(self._health.report()), _JSON
        if read.function == FUNCTIONS_FUNCTION:
            self._check_there()
            found = await asyncio.to_thread(list_functions, self._chain.model, self._writer.functions)
            return dump_json(found), _JSON
        self._running += 1
        try:
            with self._writer.context.probe.step("manager.read", function=read.function, headers=read.headers):
                return await self._query(read)
        finally:
            self._running -= 1
            self._last_ms = self._clock.monotonic_ms()

    def _check_there(self) -> None:
        if self._local.is_dropped:
            raise RequestError(Code.UNKNOWN_MODEL, f"There is no model {self._chain.model!r}.", where="model")

    async def _query(self, read: AskedRead) -> tuple[bytes, Mapping[str, str]]:
        request = read_request(self._chain.model, read.function, 0, self._clock.now(), dict(read.headers), read.body)
        if request.invalid is not None:
            raise request.invalid
        function = self._readable(read.function)
        limits = self._writer.limits
        if len(read.body) > LONG_BODY_BYTES:
            wanted = await asyncio.to_thread(self._read_request, request, function, limits)
        else:
            wanted = self._read_request(request, function, limits)
        self._check_there()
        if not await self._local.wait_for(max(wanted.min_version, 1), wanted.wait_ms):
            raise RetryError(
                Code.TIMED_OUT,
                f"Version {wanted.min_version} was not served within {wanted.wait_ms} ms; "
                f"{self._local.served} is the newest here.",
                where="min_version",
                hint=f"It waits: {self._local.error}" if self._local.error else "Try again.",
            )
        asked = Asked(read.client, wanted.work, limits, wanted.time_ms_max, self._local.served, self._page_bytes_max)
        try:
            return await self._read(asked)
        except OtherCodeError as e:
            self.app_watch.found(e)
            raise
        except DamagedVersionError as e:
            self._local.report(e)
            raise RetryError(
                Code.UNAVAILABLE,
                f"The local file of {self._chain.model} is damaged; the next manager makes it again.",
                where=e.where,
                hint="Try again in a moment.",
            ) from e

    async def _read(self, asked: Asked) -> tuple[bytes, Mapping[str, str]]:
        pages = StoredPages(self._chain)
        headers, body = await self._pool.read(asked, pages.store)
        return body, headers | pages.headers

    def _readable(self, name: str) -> Function:
        """Return a function that can be called directly; raises `unknown_function`, or why its app cannot be used."""
        functions = self._writer.functions
        function = functions.require(name)
        if function.traits.nature is not Nature.READS:
            raise RequestError(
                Code.UNKNOWN_FUNCTION,
                f"{name!r} cannot be called directly: it is applied in the order of the log.",
                where="function",
                hint=f"Send it as a request; direct reads are {', '.join(functions.with_nature(Nature.READS))}.",
            )
        return function

    def _read_request(self, request: Request, function: Function, limits: LimitSettings) -> DirectRead:
        call = Call(request, CallContext(limits, self._sources))
        wait_ms = call.integer("wait_ms", WAIT_MS_DEFAULT)
        if wait_ms > WAIT_MS_MAX:
            raise RequestError(Code.OUT_OF_RANGE, f"'wait_ms' is 0 to {WAIT_MS_MAX}, not {wait_ms}.", where="wait_ms")
        min_version = call.integer("min_version", 0)
        if call.expected_version is not None:
            message = "A direct read has no effect that could be stale."
            raise RequestError(Code.UNKNOWN_ARGUMENT, message, where="expected_version", hint="Use min_version.")
        code = function.traits.app
        if code is not None:  # its worker takes the other arguments
            time_ms_max = function.traits.time_ms_max or limits.query_time_ms_max
            app_call = AppCall(request, code, self._writer.context.apps.import_ms_max)
            return DirectRead(app_call, time_ms_max, min_version, wait_ms)
        query = read_query(call, limits)
        call.finish()
        return DirectRead(query, limits.query_time_ms_max, min_version, wait_ms)
