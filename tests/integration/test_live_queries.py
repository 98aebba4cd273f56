"""Live queries: what a watcher adds up is the query's answer at every version that it names."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from processes import MODEL, Installation, rows, table, until
from teatree.client.live.watched_answer import WatchedAnswer
from teatree.client.live.watching import AnswerChange
from teatree.client.session import Session
from teatree.contracts.errors import TeatreeError
from teatree.contracts.formats.codec import dump_json

COUNT = "SELECT count(*) AS n, sum(id) AS s FROM t"


class Watch:
    """A watcher that runs in the background, adds its changes up, and keeps what it had at each version."""

    def __init__(self, session: Session, sql: str, parameters: Any = None, **options: Any) -> None:
        self.sql = sql
        self.changes: list[AnswerChange] = []
        self.answer = WatchedAnswer()
        self.at: dict[int, Counter[bytes]] = {}
        self.error: TeatreeError | None = None
        self._task = asyncio.create_task(self._run(session.model(MODEL).watch(sql, parameters, **options)))

    async def _run(self, changes: Any) -> None:
        try:
            async for change in changes:
                self.answer.apply(change)
                self.at[change.version] = count(self.answer.rows().to_json_rows())
                self.changes.append(change)
        except TeatreeError as e:
            self.error = e

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows that it has now."""
        return self.answer.rows().to_json_rows() if self.changes else []

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


async def check_versions(installation: Installation, watch: Watch) -> None:
    """Compare what a watcher had at each version with the query's answer at that version."""
    async with Session(installation.settings) as session:
        for version, had in watch.at.items():
            expected = await session.model(MODEL).query(watch.sql, version=version)
            assert had == count(expected.to_json_rows()), f"version {version} of {watch.sql}"


async def test_changes_add_up_at_every_version(installation: Installation) -> None:
    """By key and as multisets, of tables and of aggregates; queries whose table did not change have no change."""
    await installation.created(table("id", "v", key="id"))
    await installation.send("create_table", {"table": "u", "columns": [{"name": "a", "type": "BIGINT"}]}, "u")
    queries = ("SELECT * FROM t", "SELECT v, id % 2 AS odd FROM t", COUNT, "SELECT a FROM u")
    async with watching(installation, *queries) as watches:
        by_key, counted, total, other = watches
        for watch in watches:
            await watch.begun()
        for number in range(6):
            await installation.send("append", rows(number * 2, number * 2 + 1, v=number), f"a{number}")
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
            await check_versions(installation, watch)
