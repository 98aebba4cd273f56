"""The handler of direct reads: `query` on the newest local version, in a worker process; `health` of the manager."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from teatree.contracts.errors import Code, RequestError, RetryError
from teatree.contracts.formats.codec import dump_json
from teatree.contracts.formats.requests import CONTENT_JSON, HEADER_CONTENT_TYPE, HEADER_REFS, Request, read_request
from teatree.contracts.names import new_id
from teatree.contracts.settings import LimitSettings
from teatree.engine.errors import DamagedVersionError
from teatree.engine.writer import Writer
from teatree.functions.arguments import Call, CallContext
from teatree.functions.query import Query, read_query
from teatree.functions.sources import Sources
from teatree.functions.traits import Nature
from teatree.messaging.asked_reads import AskedRead
from teatree_manager.followers.local_file import LocalFollower
from teatree_manager.health import Health
from teatree_manager.read_workers.pool import Asked, ReadPool

WAIT_MS_DEFAULT = 5_000
"""Milliseconds that a read waits for its `min_version`."""
WAIT_MS_MAX = 60_000
HEALTH_FUNCTION = "health"


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
        self._running = 0
        self._last_ms = self._clock.monotonic_ms()

    @property
    def last_ms(self) -> float:
        """When something was read last, by the monotonic clock: a model that is read is not idle."""
        return self._clock.monotonic_ms() if self._running else self._last_ms

    async def answer(self, read: AskedRead) -> tuple[bytes, Mapping[str, str]]:
        """Return the answer to one read."""
        if read.function == HEALTH_FUNCTION:
            return dump_json(self._health.report()), {HEADER_CONTENT_TYPE: CONTENT_JSON}
        self._running += 1
        try:
            with self._writer.context.probe.step("manager.read", function=read.function, headers=read.headers):
                return await self._query(read)
        finally:
            self._running -= 1
            self._last_ms = self._clock.monotonic_ms()

    async def _query(self, read: AskedRead) -> tuple[bytes, Mapping[str, str]]:
        functions = self._writer.functions
        if functions.traits(read.function).nature is not Nature.READS:
            raise RequestError(
                Code.UNKNOWN_FUNCTION,
                f"{read.function!r} cannot be read directly.",
                where="function",
                hint=f"Use {' or '.join(functions.with_nature(Nature.READS))}.",
            )
        request = read_request(self._chain.model, read.function, 0, self._clock.now(), dict(read.headers), read.body)
        limits = self._writer.limits
        call, query, min_version, wait_ms = self._read_call(request, limits)
        call.finish()
        if self._local.is_dropped:
            raise RequestError(Code.UNKNOWN_MODEL, f"There is no model {self._chain.model!r}.", where="model")
        if not await self._local.wait_for(max(min_version, 1), wait_ms):
            raise RetryError(
                Code.TIMED_OUT,
                f"Version {min_version} was not served within {wait_ms} ms; {self._local.served} is the newest here.",
                where="min_version",
                hint=f"It waits: {self._local.error}" if self._local.error else "Try again.",
            )
        asked = Asked(read.client, query, limits, limits.query_time_ms_max, self._local.served, self._page_bytes_max)
        try:
            return await self._read(asked)
        except DamagedVersionError as e:
            self._local.report(e)
            raise RetryError(
                Code.UNAVAILABLE,
                f"The local file of {self._chain.model} is damaged; the next manager makes it again.",
                where=e.where,
                hint="Try again in a moment.",
            ) from e

    async def _read(self, asked: Asked) -> tuple[bytes, Mapping[str, str]]:
        refs: list[dict[str, Any]] = []
        folder = f"pages/direct/{new_id()}"

        async def store_page(number: int, rows: int, body: bytes) -> None:
            key = self._chain.key(f"{folder}/{number:06d}")
            await asyncio.to_thread(self._chain.store.put, key, body)
            refs.append({"page": number, "ref": key, "rows": rows})

        headers, body = await self._pool.read(asked, store_page)
        if refs:
            headers[HEADER_REFS] = dump_json(refs).decode()
        return body, headers

    def _read_call(self, request: Request, limits: LimitSettings) -> tuple[Call, Query, int, int]:
        if request.invalid is not None:
            raise request.invalid
        call = Call(request, CallContext(limits, self._sources))
        wait_ms = call.integer("wait_ms", WAIT_MS_DEFAULT)
        if wait_ms > WAIT_MS_MAX:
            raise RequestError(Code.OUT_OF_RANGE, f"'wait_ms' is 0 to {WAIT_MS_MAX}, not {wait_ms}.", where="wait_ms")
        return call, read_query(call, limits), call.integer("min_version", 0), wait_ms
