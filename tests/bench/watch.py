"""What live queries cost: `python tests/bench/watch.py [--seconds 8] [--rounds 7] [--queries 100] [--watchers 20]`.

Two models take one-row appends in turns, one without watchers and one whose distinct queries are watched, by so many
sessions in another process; so what else this machine does affects both. Prints one JSON line a figure, as `speed.py`
does, and checks what some watchers added up.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import psutil
from figures import report
from speed import COLUMNS, model_health, throughput

from teatree.client.live.watched_answer import WatchedAnswer
from teatree.client.session import Session
from teatree.contracts.clock import SYSTEM_CLOCK
from teatree.contracts.environment import connection_environ, process_environ, read_settings
from teatree.embedded.stack import Stack, StackOptions

PLAIN, WATCHED = "plain", "watched"
CHECKED = 10
"""Watchers that add their changes up."""


def queries(count: int) -> list[tuple[str, list[Any]]]:
    """Return distinct queries as a dashboard has them: groups, totals, and rows by key."""
    kinds = (
        "SELECT product, sum(amount) AS amount, count(*) AS n FROM sales WHERE site = ? GROUP BY product",
        "SELECT count(*) AS n, sum(amount) AS amount, max(id) AS newest FROM sales WHERE site = ?",
        "SELECT site, count(*) AS n FROM sales WHERE product = ? GROUP BY site",
    )
    texts = ("site", "site", "product")
    return [(kinds[i % 3], [f"{texts[i % 3]}-{i // 3}"]) for i in range(count)]


def main() -> None:
    """Run the benchmark, or the watchers of one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0, help="how long each window runs")
    parser.add_argument("--rounds", type=int, default=7, help="windows of either kind")
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--watchers", type=int, default=20, help="watchers of each query")
    parser.add_argument("--only-watch", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only_watch:
        asyncio.run(Watchers(options.queries, options.watchers).run())
        return
    with tempfile.TemporaryDirectory(prefix="teatree-bench-") as folder, Stack(StackOptions(Path(folder) / "d")) as up:
        asyncio.run(measure(up, options))


async def measure(stack: Stack, options: argparse.Namespace) -> None:
    """Measure windows in turns; the watchers are there all the time, and what they watch changes in every second."""
    async with Session(stack.settings) as session:
        for name in (PLAIN, WATCHED):
            await session.create_model(name, tables=[{"table": "sales", "columns": COLUMNS}])
            await throughput(session, name, options.seconds)  # to warm up
        with WatcherProcess(stack, options) as watchers:
            report("all_watchers_begun", watchers.receive()["took_s"], "s")
            rates: dict[str, list[float]] = {PLAIN: [], WATCHED: []}
            costs: dict[str, list[float]] = {PLAIN: [], WATCHED: []}
            shares: list[float] = []
            for number in range(options.rounds):
                for name in (PLAIN, WATCHED) if number % 2 else (WATCHED, PLAIN):
                    live = LiveProcess(await model_health(session, WATCHED))
                    manager = Used(await model_health(session, name))
                    rate = await throughput(session, name, options.seconds)
                    rates[name].append(rate)
                    costs[name].append(manager.us(rate * options.seconds))
                    if name == WATCHED:
                        shares.append(live.share())
                        await live.until_quiet()
            found = watchers.stop()
            await check(session, found["answers"])
        ratios = [with_them / without for with_them, without in zip(rates[WATCHED], rates[PLAIN], strict=True)]
        middle = {name: statistics.median(found) for name, found in rates.items()}
        us = {name: statistics.median(found) for name, found in costs.items()}
        what = "without watchers"
        report("watched_requests_per_s_median", middle[WATCHED], "1/s", baseline=middle[PLAIN], what=what)
        report("watched_ratio_median", statistics.median(ratios), "")
        report("watched_ratio_lowest", min(ratios), "")
        report("watched_ratio_highest", max(ratios), "")
        report("watched_manager_us_per_request_median", us[WATCHED], "us", baseline=us[PLAIN], what=what)
        report("live_core_share_median", statistics.median(shares), "cores")
        report("changes_per_watcher", found["changes"] / max(found["watchers"], 1), "")
        report("answers_checked", len(found["answers"]), "")


async def check(session: Session, answers: Sequence[dict[str, Any]]) -> None:
    """Compare what watchers added up with the answers of the versions that they named last."""
    for answer in answers:
        expected = await session.model(WATCHED).query(
            answer["sql"], answer["parameters"], version=answer["version"], timeout_ms=120_000
        )
        if _count(answer["rows"]) != _count(expected.to_json_rows()):
            raise SystemExit(f"a watcher added up otherwise than version {answer['version']}: {answer['sql']}")


def _count(rows: Sequence[dict[str, Any]]) -> Counter[str]:
    return Counter(json.dumps(row, sort_keys=True) for row in rows)


class Used:
    """The processor time that a manager uses, without its workers."""

    def __init__(self, health: dict[str, Any]) -> None:
        self._manager = psutil.Process(health["pid"])
        self._began = self._manager.cpu_times()

    def us(self, requests: float) -> float:
        """Return the microseconds for each of so many requests."""
        now = self._manager.cpu_times()
        return (now.user - self._began.user + now.system - self._began.system) / requests * 1e6


class LiveProcess:
    """The process that runs live queries: a child of its manager that gives way to the others."""

    def __init__(self, health: dict[str, Any]) -> None:
        self._manager = psutil.Process(health["pid"])
        self._began_s = SYSTEM_CLOCK.monotonic()
        self._used_s = self._used()

    def _used(self) -> float:
        nice = [child for child in self._manager.children() if child.nice() > 0]
        return sum(sum(child.cpu_times()[:2]) for child in nice)

    async def until_quiet(self) -> None:
        """Wait until it has caught up with the changes."""
        used_s = -1.0
        while used_s < self._used():
            used_s = self._used()
            await asyncio.sleep(2)

    def share(self) -> float:
        """Return how much of a core it has used on average."""
        return (self._used() - self._used_s) / (SYSTEM_CLOCK.monotonic() - self._began_s)


class WatcherProcess:
    """The process with all watchers."""

    def __init__(self, stack: Stack, options: argparse.Namespace) -> None:
        arguments = ["--only-watch", "--queries", str(options.queries), "--watchers", str(options.watchers)]
        self._process = subprocess.Popen(
            [sys.executable, __file__, *arguments],
            env={**process_environ(), **connection_environ(stack.settings)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def receive(self) -> dict[str, Any]:
        """Return the next line that it prints."""
        assert self._process.stdout is not None
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        return found

    def stop(self) -> dict[str, Any]:
        """Have it report and end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return self.receive()


class Watchers:
    """All watchers, in one process."""

    def __init__(self, distinct: int, each: int) -> None:
        self._queries = queries(distinct)
        self._each = each
        self._changes = 0
        self._waiting = distinct * each
        self._all_begun = asyncio.Event()
        self._answers: dict[int, WatchedAnswer] = {}

    async def run(self) -> None:
        """Watch until the standard input ends; print when all have begun, and at the end."""
        began_s = SYSTEM_CLOCK.monotonic()
        sessions = [Session(read_settings(process_environ())) for _ in range(self._each)]
        for session in sessions:
            await session.open()
        checked = set(random.Random(1).sample(range(len(self._queries)), min(CHECKED, len(self._queries))))
        tasks = [
            asyncio.create_task(self._watch(session, place, adds_up=place in checked and session is sessions[0]))
            for session in sessions
            for place in range(len(self._queries))
        ]
        await self._all_begun.wait()
        print(json.dumps({"took_s": SYSTEM_CLOCK.monotonic() - began_s}), flush=True)
        used_s, changes = _processor_s(), self._changes
        await asyncio.to_thread(sys.stdin.read)
        used_s = _processor_s() - used_s
        failed = [task for task in tasks if task.done()]
        for task in failed:
            task.result()
        print(
            json.dumps(
                {
                    "watchers": len(tasks),
                    "changes": self._changes - changes,
                    "processor_s": used_s,
                    "answers": [self._answer(place) for place in self._answers],
                }
            ),
            flush=True,
        )
        os._exit(0)

    def _answer(self, place: int) -> dict[str, Any]:
        sql, parameters = self._queries[place]
        answer = self._answers[place]
        rows = answer.rows().to_json_rows()
        return {"sql": sql, "parameters": parameters, "version": answer.version, "rows": rows}

    async def _watch(self, session: Session, place: int, *, adds_up: bool) -> None:
        sql, parameters = self._queries[place]
        is_first = True
        async for change in session.model(WATCHED).watch(sql, parameters, timeout_ms=120_000):
            if adds_up:
                self._answers.setdefault(place, WatchedAnswer()).apply(change)
            if is_first:
                is_first = False
                self._waiting -= 1
                if not self._waiting:
                    self._all_begun.set()
            else:
                self._changes += 1


def _processor_s() -> float:
    times = psutil.Process().cpu_times()
    return float(times.user + times.system)


if __name__ == "__main__":
    main()
