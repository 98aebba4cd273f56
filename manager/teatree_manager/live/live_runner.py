"""The process that runs watched queries: which version's file it has open, and what it takes of the processor.

Opening a file takes several times as long as a typical query, so the runs that are due use one file until they have
taken enough time on it, or need a newer one. Then the newest is opened.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from attrs import evolve

from teatree.contracts.environment import process_environ
from teatree.contracts.errors import Code, RequestError, RetryError, TeatreeError
from teatree.contracts.formats.requests import HEADER_VERSION
from teatree.contracts.settings import LimitSettings
from teatree_manager.context import ManagerContext
from teatree_manager.followers.local_file import LocalFollower
from teatree_manager.live.core_budget import CoreBudget
from teatree_manager.live.live_query import LiveQuery, RanAt
from teatree_manager.read_workers.live_work import KeptAnswer, LiveBatch, LiveReply, LiveRun
from teatree_manager.read_workers.pool import Asked, ReadPool
from teatree_manager.read_workers.stored_pages import StoredPages

NICE = 10
"""By how much its process gives way to the manager, NATS and reads."""
IDLE_MS = 60_000
"""Milliseconds after which its process ends if nothing changes: a start takes as much as a hundred runs."""
BATCH_MS = 50
"""Milliseconds of processor time that the runs of one job take: a job costs the manager as much as a run costs it."""
KILLS_MAX = 1_000_000
"""Kills after which all its queries would be held off: each is held off for its kills alone."""
FILE_MS = 100
"""Milliseconds of processor time that runs take on one file before a newer one is opened."""
BUSY_PART = 0.25
"""A run that is interrupted with less than this part of its time on the processor has waited for that."""
LIMIT_HINT = "Watch less at once: an aggregate, or fewer rows."


class LiveRunner:
    """Runs the queries of one model in a separate read worker."""

    def __init__(
        self, context: ManagerContext, limits: LimitSettings, local: LocalFollower, first_page_bytes_max: int
    ) -> None:
        """`first_page_bytes_max` is what fits into one reply."""
        self._chain = context.chain
        self._clock = context.clock
        self._local = local
        self._settings = context.settings.live
        self._first_page_bytes_max = first_page_bytes_max
        self._limits = evolve(
            limits, threads=1, query_rows_max=self._settings.rows_max, rows_bytes_max=self._settings.bytes_max
        )
        self._turn = asyncio.Lock()
        """Held from the choice of a file until the run on it has ended."""
        self._file: tuple[int, Path] | None = None
        """The file that runs use."""
        self._served = 0
        """The newest version for which it answers, as far as that was known while it was the newest file."""
        reads = evolve(
            context.settings.reads,
            workers_max=1,
            nice=NICE,
            client_kills_max=KILLS_MAX,
            idle_ms=IDLE_MS,
        )
        temp = context.folder.live / "temp"
        self._pool = ReadPool(reads, process_environ(), temp, lambda: self._file, context.probe, context.clock)
        self._budget = CoreBudget(self._settings, context.clock.monotonic_ms())
        self._paid_ms = self._opened_at_ms = 0.0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._pool.close()

    @property
    def pids(self) -> list[int]:
        """Its process, if it runs."""
        return self._pool.pids

    @property
    def wait_ms(self) -> float:
        """For how long no query may run, since the others have taken their share of the processor."""
        return self._budget.wait_ms(self._clock.monotonic_ms())

    @property
    def newest(self) -> int:
        """The newest version on which a query can run."""
        newest = self._local.newest_file()
        return max(newest[0], self._local.served) if newest is not None else 0

    def rest(self) -> None:
        """Let it close its file if there is a newer one: no run is due."""
        if not self._turn.locked() and self._file != self._local.newest_file():
            self._file = None
            self._pool.release()

    async def run(self, queries: Sequence[LiveQuery], client: str, at_least: int) -> list[RanAt]:
        """Run queries on a version that is newer than their answers, and `at_least` this one; return what ran.

        Not all of them may have had their turn. Raises what a read raises, and `over_limit` also for too large an
        answer and too long a run: if there are several, any of them may be the cause.
        """
        runs = (
            LiveRun(
                live.sql,
                live.parameters,
                live.kept,
                live.keep_as,
                live.key_columns,
                live.formats,
                self._settings.change_bytes_max,
            )
            for live in queries
        )
        batch = LiveBatch(tuple(runs), BATCH_MS)
        async with self._turn:
            self._choose(max(at_least, min(live.through for live in queries) + 1))
            try:
                return await self._run(batch, client)
            except RetryError as e:
                if e.code is not Code.UNAVAILABLE or self._file == self._local.newest_file():
                    raise
            self._file = None  # it was removed while no process had it open
            self._choose(0)
            return await self._run(batch, client)

    async def _run(self, batch: LiveBatch, client: str) -> list[RanAt]:
        version = self._served
        head, body = await self._ask(self._asked(batch, client), StoredPages(self._chain))
        return [RanAt(version, reply) for reply in LiveReply(dict(head), body).parts()]

    async def pages(self, live: LiveQuery, client: str, page_rows: int, form: str) -> tuple[dict[str, str], bytes]:
        """Return headers and body of a query's last answer; pages after the first are stored."""
        work = KeptAnswer(live.kept, live.through, page_rows, form)
        pages = StoredPages(self._chain)
        head, body = await self._ask(self._asked(work, client), pages)
        return {**head["headers"], **pages.headers, HEADER_VERSION: str(work.version)}, body

    def _asked(self, work: LiveBatch | KeptAnswer, client: str) -> Asked:
        return Asked(client, work, self._limits, self._settings.time_ms_max, self._served, self._first_page_bytes_max)

    async def _ask(self, asked: Asked, pages: StoredPages) -> tuple[Mapping[str, Any], bytes]:
        try:
            return await self._pool.ask(asked, pages.store)
        except TeatreeError as e:
            raise self._limited(e, self._unpaid_ms) from e
        finally:
            used_ms = self._unpaid_ms
            self._paid_ms += used_ms
            self._budget.spend(used_ms, self._clock.monotonic_ms())

    @property
    def _unpaid_ms(self) -> float:
        return self._pool.processor_ms - self._paid_ms

    def _limited(self, error: TeatreeError, used_ms: float) -> TeatreeError:
        """Return an error as that of a limit of live queries if it is one.

        What had little of the processor in its time is tried again: it gives way to all else on this machine.
        """
        settings = self._settings
        match error:
            case RequestError(code=Code.RESULT_TOO_LARGE) if error.where == "sql":
                what = f"The answer has more than {settings.rows_max:,} rows or {settings.bytes_max:,} bytes"
            case RetryError(code=Code.TIMED_OUT) if used_ms < settings.time_ms_max * BUSY_PART:
                return RetryError(Code.BUSY, f"This machine is busy: {error.message}", where="sql", hint="Try again.")
            case RetryError(code=Code.TIMED_OUT):
                what = f"It runs longer than {settings.time_ms_max:,} ms"
            case _:
                return error
        return RetryError(Code.OVER_LIMIT, f"{what}, which no watched query may.", where="sql", hint=LIMIT_HINT)

    def _choose(self, at_least: int) -> None:
        """Set the file of the next run; raises `unavailable` before the first."""
        newest = self._local.newest_file()
        if newest is None:
            raise RetryError(Code.UNAVAILABLE, "The model has no version to read yet.", hint="Try again shortly.")
        spent_ms = self._pool.processor_ms - self._opened_at_ms
        if newest != self._file and (self._file is None or self._served < at_least or spent_ms >= FILE_MS):
            self._file, self._served = newest, newest[0]
            self._opened_at_ms = self._pool.processor_ms
        if self._file == newest:
            self._served = max(newest[0], self._local.served)
