"""A watcher process: adds the changes of live queries up, and compares them with the versions that they name.

`python -m torture.watcher MODEL`, until its standard input ends; settings from the environment. It prints violations,
as `torture.reader` does. Each version is read lazily from the store; one that cannot be read there is no violation.
"""

from __future__ import annotations

import asyncio
import random
import sys
import threading
from collections import Counter
from contextlib import aclosing
from typing import Any

import duckdb

import teatree
from teatree.client.live.watched_answer import WatchedAnswer
from teatree.contracts.errors import Code, TeatreeError
from torture.reader import report, wait

QUERIES = (
    "SELECT a, count(*) AS n, sum(v)::BIGINT AS v FROM pairs GROUP BY a",
    "SELECT count(*) AS n, coalesce(sum(v), 0)::BIGINT AS v FROM pairs",
)
COMPARED_SHARE = 0.2
"""How many of the changes are compared with their version: each costs the store some reads."""
AGAIN_S = 0.5
ALLOWED = {Code.UNAVAILABLE, Code.TIMED_OUT, Code.BUSY, Code.UNKNOWN_MODEL, Code.UNKNOWN_TABLE, Code.HELD_OFF}
"""What may end a watch: the installation is cut off or restarted, the table is not there yet or was dropped."""


class LiveChecks:
    """What the watchers of one model found."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.changes = self.compared = 0
        self._rng = random.Random(model)

    async def watch(self, sql: str) -> None:
        """Watch a query for ever, again after what may end it."""
        while True:
            try:
                async with teatree.connect(wait_ms=10_000) as session:
                    await self._watch(session, sql)
            except TeatreeError as e:
                if e.code not in ALLOWED:
                    report(error=f"a watch of {self.model} ended: {e}: {sql}", code=str(e.code))
            await asyncio.sleep(AGAIN_S)

    async def _watch(self, session: teatree.Session, sql: str) -> None:
        answer, newest = WatchedAnswer(), 0
        async with aclosing(session.model(self.model).watch(sql)) as changes:
            async for change in changes:
                answer.apply(change)
                self.changes += 1
                if change.version < newest:
                    report(error=f"a watch of {self.model} went back from {newest} to {change.version}")
                newest = max(newest, change.version)
                if self._rng.random() < COMPARED_SHARE:
                    rows = Counter(tuple(row.values()) for row in answer.rows().rows())
                    await asyncio.to_thread(self._compare, sql, change.version, rows)

    def _compare(self, sql: str, version: int, rows: Counter[tuple[Any, ...]]) -> None:
        with duckdb.connect(config={"threads": 1}) as con:
            try:
                with teatree.attach(con, self.model, version=version, alias="m"):
                    expected = Counter(con.execute(sql.replace("FROM pairs", "FROM m.pairs")).fetchall())
            except (TeatreeError, duckdb.Error):  # it was cleaned up, or the store is unavailable or damaged
                return
        self.compared += 1
        if rows != expected:
            report(error=f"version {version} of {self.model} was added up as {rows}, and is {expected}: {sql}")


async def main() -> None:
    """Watch until standard input ends."""
    stop = threading.Event()
    checks = LiveChecks(sys.argv[1])
    tasks = [asyncio.create_task(checks.watch(sql)) for sql in QUERIES]
    await asyncio.to_thread(wait, stop)
    for task in tasks:
        task.cancel()
    for end in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(end, Exception):
            report(error=f"a watcher of {checks.model} failed: {end!r}")
    report(watched=checks.changes, compared=checks.compared)


if __name__ == "__main__":
    asyncio.run(main())
