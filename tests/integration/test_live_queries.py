"""Live queries: what a watcher adds up is the query's answer at every version that it names."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from commands import run_command
from processes import MODEL, Installation, rows, table, until, until_async
from teatree.client.live import watching as watcher
from teatree.client.live.watched_answer import WatchedAnswer
from teatree.client.live.watching import AnswerChange
from teatree.client.session import Session
from teatree.client.sync import connect_sync
from teatree.contracts.environment import connection_environ
from teatree.contracts.errors import Code, TeatreeError
from teatree.contracts.formats.codec import dump_json

NOTHING: dict[str, Any] = {"added": [], "changed": [], "removed": []}
COUNT = "SELECT count(*) AS n, sum(id) AS s FROM t"
QUICKLY: dict[str, Any] = {"TEATREE_LIVE_CORE_SHARE": "1000"}


REFUSED = {
    "SELECT random() AS x FROM t": Code.SQL_NOT_ALLOWED,
    "SELECT id FROM t LIMIT 1": Code.SQL_NOT_ALLOWED,
    "SELECT id FROM nowhere": Code.UNKNOWN_TABLE,
    "SELECT ide FROM t": Code.BAD_SQL,
    "INSERT INTO t VALUES (1)": Code.SQL_NOT_ALLOWED,
    "SELECT 1 AS a, 2 AS a": Code.COLUMN_EXISTS,
    "SELECT levenshtein(repeat('a', 1000000), repeat('b', 1000000))": Code.OVER_LIMIT,
    "SELECT 6 AS too_many": Code.OVER_LIMIT,
}
"""Queries that cannot be watched; the last ones in this order."""


class Watch:
    """A watcher that runs in the background, adds its changes up, and keeps what it had at each version."""

    def __init__(self, session: Session, sql: str, parameters: Any = None, **options: Any) -> None:
        self.sql = sql
        self.changes: list[AnswerChange] = []
        self.answer = WatchedAnswer()
        self.at: dict[int, Counter[tuple[Any, ...]]] = {}
        self.error: TeatreeError | None = None
        self._task = asyncio.create_task(self._run(session.model(MODEL).watch(sql, parameters, **options)))

    async def _run(self, changes: Any) -> None:
        try:
            async for change in changes:
                self.answer.apply(change)
                self.at[change.version] = Counter(tuple(row.values()) for row in self.rows)
                self.changes.append(change)
        except TeatreeError as e:
            self.error = e

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows that it has now."""
        return self.answer.rows().rows() if self.answer.version is not None else []

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds; an error ends the wait."""
        await until(lambda: self.error is not None or holds(), lambda: f"a change: {self.changes} {self.error}")

    async def begun(self) -> None:
        """Wait for its first answer."""
        await self.until(lambda: bool(self.changes))
        assert self.error is None

    async def until_rows(self, *expected: dict[str, Any]) -> None:
        """Wait until it has these rows."""
        await self.until(lambda: count(self.rows) == count(expected) if self.changes else False)
        assert self.error is None

    async def close(self) -> None:
        """End it."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


def count(found: Any) -> Counter[bytes]:
    """Return rows as a multiset."""
    return Counter(dump_json(row) for row in found)


@asynccontextmanager
async def watching(installation: Installation, *queries: str, **options: Any) -> AsyncIterator[list[Watch]]:
    """Watch queries in one session."""
    async with Session(installation.settings) as session:
        watches = [Watch(session, sql, **options) for sql in queries]
        try:
            yield watches
        finally:
            for watch in watches:
                await watch.close()


def check_versions(installation: Installation, watch: Watch) -> None:
    """Compare what a watcher had at each version with the query's answer at that version."""
    for version, had in watch.at.items():
        assert had == Counter(installation.read(watch.sql, version)), f"version {version} of {watch.sql}"


async def test_changes_add_up_at_every_version(installation: Installation) -> None:
    """By key and as multisets, of tables and of aggregates; queries whose table did not change have no change."""
    await installation.created(table("id", "v", key="id"), **QUICKLY)
    u = {"table": "u", "columns": [{"name": "a", "type": "BIGINT"}]}
    there = (await installation.send("create_table", u, "u"))["version"]
    queries = ("SELECT * FROM t", "SELECT v, id % 2 AS odd FROM t", COUNT, "SELECT a FROM u")
    async with watching(installation, *queries, min_version=there) as watches:
        by_key, counted, total, other = watches
        for watch in watches:
            await watch.begun()
        for number in range(6):
            await installation.publish("append", rows(number * 2, number * 2 + 1, v=number), f"a{number}")
            await installation.send("update", {"table": "t", "set": {"v": 7}, "where": {"id": number}}, f"u{number}")
        await installation.send("delete", {"table": "t", "where": {"id": 3}}, "d")
        left = [i for i in range(12) if i != 3]
        await by_key.until_rows(*({"id": i, "v": 7 if i < 6 else i // 2} for i in left))
        await total.until_rows({"n": 11, "s": sum(left)})
        await counted.until_rows(*({"v": 7 if i < 6 else i // 2, "odd": i % 2} for i in left))
        assert by_key.changes[-1].key == ("id",)
        assert counted.changes[-1].key == total.changes[-1].key == ()
        assert all(change.from_version is not None for change in by_key.changes[1:])
        assert len(other.changes) == 1
        for watch in watches:
            check_versions(installation, watch)


async def test_a_watcher_survives_its_manager(installation: Installation) -> None:
    """After a manager was killed its watchers are called by the next one, and add up to the same as before."""
    manager = await installation.created(table("id", key="id"))
    await installation.send("append", rows(1), "a")
    async with watching(installation, "SELECT id FROM t", COUNT) as watches:
        for watch in watches:
            await watch.begun()
        await manager.kill()
        await installation.publish("append", rows(2), "b")
        installation.manager()
        await watches[0].until_rows({"id": 1}, {"id": 2})
        await installation.send("append", rows(3), "c")
        await watches[0].until_rows({"id": 1}, {"id": 2}, {"id": 3})
        await watches[1].until_rows({"n": 3, "s": 6})
        assert watches[0].changes[-1].from_version is not None
        for watch in watches:
            check_versions(installation, watch)


async def test_a_slow_watcher_reads_anew(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    """One for which more changes wait than it keeps gets those that it has, and then the whole answer."""
    monkeypatch.setattr(watcher, "PENDING_MAX", 2)
    await installation.created(table("id"))
    async with watching(installation, COUNT) as (quick,), Session(installation.settings) as session:
        await quick.begun()
        changes = session.model(MODEL).watch(COUNT)
        answer = WatchedAnswer()
        answer.apply(await anext(changes))
        for number in range(5):
            await installation.send("append", rows(number), f"a{number}")
            await quick.until_rows({"n": number + 1, "s": sum(range(number + 1))})
        taken = [await anext(changes) for _ in range(3)]
        assert [change.is_whole for change in taken] == [False, False, True]
        for change in taken:
            answer.apply(change)
        assert answer.rows().rows() == [{"n": 5, "s": 10}]
        await changes.aclose()


async def test_a_query_that_no_watcher_renews_is_forgotten(installation: Installation) -> None:
    """When its lease ends; one that was only slow reads anew. A manager with a lease is not idle, without one it is."""
    settings: dict[str, Any] = {"TEATREE_LIVE_LEASE_MS": "3000", "TEATREE_MANAGER_IDLE_EXIT_MS": "300"}
    manager = await installation.created(table("id"), **settings)
    async with watching(installation, COUNT) as (renewing,), Session(installation.settings) as session:
        await renewing.begun()
        slow = session.model(MODEL).watch("SELECT id FROM t")
        assert (await anext(slow)).is_whole

        async def live_queries() -> int:
            reply = await installation.bus.request(installation.bus.subjects.query(MODEL, "health"), b"{}")
            return int(json.loads(reply.body)["live_queries"])

        assert await live_queries() == 2

        async def is_forgotten() -> bool:
            return await live_queries() == 1

        await until_async(is_forgotten)
        await installation.send("append", rows(1), "a")
        answer = WatchedAnswer()
        answer.apply(await anext(slow))  # whole: a change would not apply to an empty answer
        while answer.rows().rows() != [{"id": 1}]:  # it can have been read just before the append
            answer.apply(await anext(slow))
        await slow.aclose()
        assert await live_queries() == 2
        await installation.send("append", rows(2), "b")
        await until_async(is_forgotten)  # the server reports that no client receives what changed
        assert len(list(installation.local().live.glob("*.arrow"))) == 1
        assert manager.code is None
    await until(lambda: manager.code is not None)
    assert manager.code == 0


async def test_a_dropped_table_ends_its_queries(installation: Installation) -> None:
    """They fail as they would if they were asked; others, and queries on the table that is made anew, are watched."""
    await installation.created(table("id"))
    u = {"table": "u", "columns": [{"name": "a", "type": "BIGINT"}]}
    there = (await installation.send("create_table", u, "u"))["version"]
    queries = ("SELECT id FROM t", "SELECT a FROM u")
    async with watching(installation, *queries, min_version=there) as (dropped, other):
        await dropped.begun()
        await other.begun()
        await installation.send("drop_table", {"table": "t"}, "d")
        await dropped.until(lambda: False)
        assert dropped.error is not None
        assert dropped.error.code is Code.UNKNOWN_TABLE
        await installation.send("append", {"table": "u", "rows": [{"a": 5}]}, "a")
        await other.until_rows({"a": 5})
        columns = [{"name": "id", "type": "VARCHAR"}, {"name": "x", "type": "BIGINT"}]
        version = (await installation.send("create_table", {"table": "t", "columns": columns}, "c"))["version"]
        async with watching(installation, "SELECT * FROM t", min_version=version) as (again,):
            await again.begun()
            await installation.send("append", {"table": "t", "rows": [{"id": "a", "x": 1}]}, "b")
            await again.until_rows({"id": "a", "x": 1})


async def test_other_columns_are_read_anew(installation: Installation) -> None:
    """A table whose columns change, or that an earlier version replaces, gives its watchers a whole answer."""
    await installation.created(table("id", key="id"))
    before = (await installation.send("append", rows(1, 2), "a"))["version"]
    async with watching(installation, "SELECT * FROM t") as (watch,):
        await watch.begun()
        await installation.send("alter_table", {"table": "t", "add": {"name": "v", "type": "BIGINT"}}, "x")
        await watch.until_rows({"id": 1, "v": None}, {"id": 2, "v": None})
        assert watch.changes[-1].is_whole
        await installation.send("append", rows(3, v=3), "b")
        await watch.until_rows({"id": 1, "v": None}, {"id": 2, "v": None}, {"id": 3, "v": 3})
        assert not watch.changes[-1].is_whole
        await installation.send("restore", {"version": before}, "r")
        await watch.until_rows({"id": 1}, {"id": 2})
        assert watch.changes[-1].is_whole
        await installation.send("append", rows(4), "c")
        await watch.until_rows({"id": 1}, {"id": 2}, {"id": 4})
        assert [row.rows() for row in (watch.changes[-1].added,)] == [[{"id": 4}]]
        check_versions(installation, watch)


async def test_a_dropped_model_ends_its_queries(installation: Installation) -> None:
    """As `unknown_model`; the model that is created again under its name can be watched."""
    manager = await installation.created(table("id"))
    async with watching(installation, COUNT) as (watch,):
        await watch.begun()
        await installation.publish("drop_model", {}, "drop")
        await watch.until(lambda: False)
        assert watch.error is not None
        assert watch.error.code is Code.UNKNOWN_MODEL
    await until(lambda: manager.code == 0)
    await installation.publish("create_model", table("id"), "again")
    installation.manager()
    await installation.outcome("again")
    async with watching(installation, COUNT) as (watch,):
        await watch.begun()
        await installation.send("append", rows(1), "a")
        await watch.until_rows({"n": 1, "s": 1})


async def test_a_large_change_is_read_anew(installation: Installation) -> None:
    """Also with more rows than a page; an answer over the limits is refused, or ends its watch."""
    settings: dict[str, Any] = {"TEATREE_LIVE_ROWS_MAX": "300", "TEATREE_LIVE_CHANGE_BYTES_MAX": "1500"}
    await installation.created(table("id", key="id"), **settings)
    async with watching(installation, "SELECT id, repeat('x', 50) AS x FROM t") as (watch,):
        await watch.begun()
        await installation.send("append", rows(1), "a")
        await watch.until(lambda: len(watch.answer) == 1)
        assert not watch.changes[-1].is_whole
        await installation.send("append", rows(*range(2, 300)), "b")
        await watch.until(lambda: len(watch.answer) == 299)
        assert watch.changes[-1].is_whole
        await installation.send("append", rows(300, 301), "c")
        await watch.until(lambda: False)
        assert watch.error is not None
        assert watch.error.code is Code.OVER_LIMIT
        assert "300 rows" in watch.error.message


async def test_what_cannot_be_watched_is_refused(installation: Installation) -> None:
    """With a clear error, at once; the manager and the other watched queries are not affected."""
    limits: dict[str, Any] = {
        "TEATREE_LIVE_TIME_MS_MAX": "1500",
        "TEATREE_LIVE_QUERIES_MAX": "2",
    }
    manager = await installation.created(table("id"), **limits)
    async with watching(installation, COUNT) as (watch,):
        await watch.begun()
        for sql, code in REFUSED.items():
            if code is Code.OVER_LIMIT and "too_many" in sql:
                async with watching(installation, "SELECT 5 AS x") as (second,):
                    await second.begun()
            async with watching(installation, sql) as (refused,):
                await refused.until(lambda: False)
                assert refused.error is not None
                assert refused.error.code is code, (sql, refused.error)
        await installation.send("append", rows(1), "a")
        await watch.until_rows({"n": 1, "s": 1})
        assert manager.code is None


async def test_the_command_and_the_synchronous_client(installation: Installation) -> None:
    """Both begin with the whole answer, as rows for people or as a document for programs."""
    await installation.created(table("id", "v", key="id"))
    version = (await installation.send("append", rows(1, 2, v=5), "a"))["version"]
    await installation.ask("SELECT 1", min_version=version)
    environ = connection_environ(installation.settings)
    asked = ("watch", MODEL, "--query", "SELECT id FROM t WHERE id > ?", "--param", "1", "--count", "1")
    found = await asyncio.to_thread(run_command, environ, *asked, "--json")
    assert found.json == {"version": version, "from": None, "key": ["id"], **NOTHING, "added": [{"id": 2}]}
    shown = await asyncio.to_thread(run_command, environ, *asked)
    assert (shown.code, "id" in shown.out, f"1 row, version {version}" in shown.err) == (0, True, True)
    for wrong in (("--all",), ("--query", "SELECT now()")):
        refused = await asyncio.to_thread(run_command, environ, *asked[:4], *wrong)
        assert refused.code != 0
        assert refused.err

    def watch() -> list[dict[str, Any]]:
        with connect_sync(settings=installation.settings) as session:
            changes = session.model(MODEL).watch("SELECT id, v FROM t")
            first = next(changes)
            session.model(MODEL).update("t", {"v": 6}, {"id": 1})
            second = next(changes)
            changes.close()
        return [*first.added.rows(), *second.changed.rows()]

    assert await asyncio.to_thread(watch) == [{"id": 1, "v": 5}, {"id": 2, "v": 5}, {"id": 1, "v": 6}]
