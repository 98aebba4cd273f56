"""The watched queries of one model: who watches them, when they run, and what is published about them.

All of it runs on the manager's event loop; queries run in the process of `LiveRunner`, one at a time. A query is run
for all that watch it when a version changed a table that it reads; versions that follow meanwhile are one later run.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack

from attrs import frozen
from typing_extensions import override

from teatree.contracts.errors import Code, CorruptError, RequestError, RetryError, TeatreeError
from teatree.contracts.formats.live import HEADER_LIVE, LiveKind, LiveNotice, Watching
from teatree.contracts.formats.manifest import Manifest
from teatree.contracts.formats.requests import CONTENT_JSON, HEADER_CONTENT_TYPE, HEADER_VERSION
from teatree.contracts.names import fold
from teatree.engine.errors import DamagedVersionError
from teatree.functions.query import Query
from teatree.messaging.bus import Bus
from teatree.storage.ledger.segments import Entry
from teatree_manager.context import ManagerContext
from teatree_manager.followers.base import Follower
from teatree_manager.followers.local_file import LocalFollower
from teatree_manager.live.live_publisher import LivePublisher
from teatree_manager.live.live_query import LiveQuery, RanAt, name_of, subject_name
from teatree_manager.live.live_runner import LiveRunner

BATCH_MAX = 20
"""Queries of one job."""
CLIENT = "live queries"
"""Who runs queries after a version, among the clients of the process."""
CACHED_BYTES_MAX = 64_000
"""Bytes of an encoded answer that stays in memory for the next watcher."""
PASSING = frozenset({Code.UNAVAILABLE, Code.BUSY, Code.DISK_FULL})
"""Errors after which a run is tried again; any other ends the query."""


@frozen
class Registration:
    """What a watcher asks for."""

    query: Query
    min_version: int
    series: str
    held_version: int
    """The version whose answer it holds, of this series; 0 if it holds none."""
    client: str


class LiveQueries(Follower):
    """Runs them, and answers those that watch them."""

    name = "live"

    def __init__(self, context: ManagerContext, runner: LiveRunner, local: LocalFollower, bus: Bus) -> None:
        super().__init__(context.probe, context.clock)
        self._model = context.model
        self._settings = context.settings.live
        self._folder = context.folder.live
        self._runner = runner
        self._local = local
        self._queries: dict[str, LiveQuery] = {}
        self._answers: dict[tuple[str, int, str], tuple[str, dict[str, str], bytes]] = {}
        """Encoded answers by query, rows of a page and form, each with the series and version that it is of."""
        self._user_version = 0
        self._last_ms = float("-inf")
        self._publisher = LivePublisher(context, bus, self._unreceived)
        self._singly = 0
        """How many of the next runs are one a job: one of them may have ended the process."""
        shutil.rmtree(self._folder, ignore_errors=True)  # answers of an earlier manager continue no series
        self._folder.mkdir(parents=True)
        local.subscribe(self.wake)
        bus.on_reconnect(self._call_again)

    # --- what the manager asks ---

    @property
    def count(self) -> int:
        """How many queries are watched."""
        self._forget_unwatched()
        return len(self._queries)

    @property
    def last_ms(self) -> float:
        """When a query was watched last, by the monotonic clock: a watched model is not idle."""
        return self._clock.monotonic_ms() if self.count else self._last_ms

    @override
    def follow(self, manifest: Manifest, entries: Sequence[Entry] = ()) -> None:
        self._user_version = manifest.user_version
        changed = {fold(name) for name in manifest.changed_tables}
        for live in self._queries.values():
            live.may_have_changed(changed, manifest.version)
        self.wake()

    @override
    async def drained(self) -> None:
        """Return at once, since watchers register with the next manager; of a dropped model, when they know of that."""
        if self._local.is_dropped:
            await super().drained()

    # --- watchers ---

    async def answer(self, wanted: Registration) -> tuple[bytes, Mapping[str, str]]:
        """Return the whole answer to a watcher, or nothing to one that holds it; the query is run from now on.

        Raises `over_limit` beyond the limits of live queries, `sql_not_allowed` for what cannot be watched, and what a
        read raises.
        """
        live = self._registered(wanted.query)
        async with live.turn:
            live.advance(self._local.served)
            if live.error is None and (live.key_columns is None or live.through < wanted.min_version):
                await self._run([live], wanted.client, wanted.min_version)
            if live.error is not None:
                raise live.error
            live.asked_for(wanted.query.format, self._clock.monotonic_ms() + self._settings.lease_ms)
            is_current = live.is_held(wanted.series, wanted.held_version)
            headers, body = ({}, b"{}") if is_current else await self._whole(live, wanted)
            watching = Watching(
                subject_name(live.name, wanted.query.format),
                live.series,
                live.through,
                self._settings.lease_ms,
                live.key_columns or (),
                is_current,
            )
        named = {HEADER_CONTENT_TYPE: CONTENT_JSON, **headers, HEADER_VERSION: str(live.through)}
        return body, {**named, HEADER_LIVE: watching.to_header()}

    def _registered(self, query: Query) -> LiveQuery:
        name = name_of(query.sql, query.parameters)
        live = self._queries.get(name)
        if live is None:
            if self.count >= self._settings.queries_max:
                raise RetryError(
                    Code.OVER_LIMIT,
                    f"{len(self._queries)} queries of {self._model} are watched, which is the limit.",
                    where="sql",
                    hint="Watch a query that others watch, or have TEATREE_LIVE_QUERIES_MAX raised.",
                )
            live = LiveQuery(name, query.sql, query.parameters, self._folder)
            self._queries[name] = live
        return live

    async def _whole(self, live: LiveQuery, wanted: Registration) -> tuple[dict[str, str], bytes]:
        """Return the whole answer, encoded once for watchers that come close to each other."""
        place = (live.name, wanted.query.page_rows, wanted.query.format)
        state = f"{live.series} {live.since}"
        found = self._answers.get(place)
        if found is not None and found[0] == state:
            return found[1], found[2]
        try:
            headers, body = await self._runner.pages(live, wanted.client, wanted.query.page_rows, wanted.query.format)
        except CorruptError as e:
            live.key_columns = None  # the next try begins another series
            raise RetryError(Code.UNAVAILABLE, e.message, where=e.where, hint="Try again.") from e
        self._answers.pop(place, None)
        if len(body) <= CACHED_BYTES_MAX and headers.get("Teatree-Pages") == "1":
            self._answers[place] = (state, headers, body)
        return headers, body

    # --- runs ---

    @override
    async def work(self) -> None:
        """Call watchers if need be, then run what is due, as far as the processor's share allows."""
        await self._publisher.call()
        if self._local.is_dropped:
            dropped = RequestError(Code.UNKNOWN_MODEL, f"There is no model {self._model!r}.", where="model")
            for live in list(self._queries.values()):
                await self._end(live, dropped)
        while due := self._due():
            wait_ms = self._runner.wait_ms
            if wait_ms > 0:
                await self._clock.sleep_async(wait_ms / 1000)
                continue  # others may be due meanwhile, or on a newer version
            free = [live for live in due if not live.turn.locked()]
            async with AsyncExitStack() as turns:
                batch = (free or due)[: 1 if self._singly or not free else BATCH_MAX]
                for live in batch:
                    await turns.enter_async_context(live.turn)
                if free:
                    self._singly = max(0, self._singly - 1)
                    await self._run(batch, CLIENT, min(live.due_at for live in batch))
        self._runner.rest()

    def _due(self) -> list[LiveQuery]:
        """Return the queries that can run on a newer version, the one that ran longest ago first."""
        self._forget_unwatched()
        newest = self._runner.newest
        return sorted((live for live in self._queries.values() if live.is_due(newest)), key=lambda live: live.ran_ms)

    async def _run(self, queries: Sequence[LiveQuery], client: str, at_least: int) -> None:
        """Run queries and publish what changed; raises what passes, and ends a query with what does not."""
        try:
            with self._probe.step("manager.live.run", queries=queries):
                results = await self._runner.run(queries, client, at_least)
        except DamagedVersionError as e:
            self._local.report(e)
            raise RetryError(Code.UNAVAILABLE, f"The local file of {self._model} is damaged.", where=e.where) from e
        except TeatreeError as e:
            if e.code in PASSING:
                queries[0].ran_ms = self._clock.monotonic_ms()  # the others have their turn first
                raise
            if len(queries) == 1:
                await self._end(queries[0], e)
            else:
                self._singly = len(queries)
            return
        notices: list[tuple[str, LiveNotice]] = []
        for live, result in zip(queries, results, strict=False):
            notices += self._ran(live, result)
        await self._publisher.publish(notices)

    def _ran(self, live: LiveQuery, result: RanAt) -> list[tuple[str, LiveNotice]]:
        """Take over what a run returned; return what to publish, by the last token of the subject."""
        if live.error is not None:  # it was ended meanwhile
            live.forget()
            return []
        is_first = live.key_columns is None
        live.ran_ms = self._clock.monotonic_ms()
        notices = live.ran(self._model, result)
        if is_first:
            live.changed_in = self._user_version  # what changed since the file was made is not known by table
            self.wake()
        return [(subject_name(live.name, form), notice) for form, notice in notices.items()]

    async def _end(self, live: LiveQuery, error: TeatreeError) -> None:
        live.error = error
        self._forget(live)
        notice = LiveNotice(LiveKind.ENDED, self._model, error=error.to_dict())
        await self._publisher.publish([(subject_name(live.name, form), notice) for form in live.formats])

    # --- leases ---

    def _call_again(self) -> None:
        self._publisher.must_call = True
        self.wake()

    def _unreceived(self, query: str) -> None:
        """Forget the form of a query that no client receives, and with the last form the query.

        A watcher that has not subscribed yet, or has lost the connection for a moment, registers anew.
        """
        for live in self._queries.values():
            live.formats = tuple(form for form in live.formats if subject_name(live.name, form) != query)
        self._forget_unwatched()

    def _forget_unwatched(self) -> None:
        now_ms = self._clock.monotonic_ms()
        unused = [one for one in self._queries.values() if one.lease_until_ms < now_ms or not one.formats]
        for live in (one for one in unused if not one.turn.locked()):
            self._last_ms = now_ms
            live.error = RetryError(Code.UNAVAILABLE, "It is not watched any more.", hint="Watch it again.")
            self._forget(live)

    def _forget(self, live: LiveQuery) -> None:
        self._queries.pop(live.name, None)
        self._answers = {place: kept for place, kept in self._answers.items() if place[0] != live.name}
        live.forget()
