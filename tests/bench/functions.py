"""What a call of an app's function costs behind the queue: `python tests/bench/functions.py [--calls 10000]`.

Prints one JSON line a figure. Everything is real: nats-server, PostgreSQL, a local store, the dispatcher and a manager
as processes. The calls are sent as one group, as the appends of the baseline are. The time in the engine is the
manifests' step `apply`: the log's messages are read by then, and what is left is parsing and checking the arguments,
injection, the function, its outcome, and the commit that many share. The least of several rounds counts: other
processes of the machine only add to it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from figures import report

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from installed_apps import APPS
from teatree.client.model import Model
from teatree.client.sending.message import Message
from teatree.client.session import Session
from teatree.embedded.stack import Stack, StackOptions
from teatree.storage.objects.stores import open_store
from teatree.storage.versions.chain import Chain

TABLES: list[dict[str, Any]] = [
    {"table": "numbers", "columns": [{"name": "n", "type": "BIGINT"}]},
    {"table": "goals", "columns": [{"name": "site", "type": "VARCHAR"}, {"name": "amount", "type": "DECIMAL(18,2)"}]},
]
ROUNDS = 3

Make = Callable[[int], Message]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=10_000, help="calls in one round")
    options = parser.parse_args()
    environ = {**os.environ, "PYTHONPATH": str(APPS)}
    with (
        tempfile.TemporaryDirectory(prefix="teatree-bench-") as folder,
        Stack(StackOptions(data=Path(folder) / "data", environ=environ)) as running,
    ):
        asyncio.run(measure(Session(running.settings), options.calls))


async def measure(session: Session, calls: int) -> None:
    """Measure every figure on a running stack."""
    async with session:
        model = await session.create_model("bench", app="goals", tables=TABLES)
        append = await best(session, model, calls, append_row)
        touch = await best(session, model, calls, lambda n: Message("touch", {"n": n}))
        row = await best(session, model, calls // 10, lambda n: Message("one_row", {"n": n}))
        sql = await best(session, model, calls // 10, insert)
    report("app_calls_per_s", touch.per_s, "1/s", baseline=append.per_s, what="one-row appends")
    report("app_calls_in_a_version", touch.per_version, "calls", baseline=append.per_version, what="appends")
    report("app_call_apply_us", touch.apply_us, "us", baseline=append.apply_us, what="a one-row append")
    report("app_call_overhead_us", touch.apply_us - append.apply_us, "us")
    report("app_call_one_row_apply_us", row.apply_us, "us", baseline=sql.apply_us, what="the built-in `sql`, one row")


def append_row(n: int) -> Message:
    """Return an append of one row."""
    return Message("append", {"table": "numbers", "rows": [{"n": n}]})


def insert(n: int) -> Message:
    """Return a statement that inserts one row."""
    return Message("sql", {"statement": "INSERT INTO numbers VALUES (?)", "parameters": [n]})


class Round:
    """One round of requests."""

    def __init__(self, count: int, took_s: float, versions: int, apply_us: float) -> None:
        self.per_s = count / took_s
        self.per_version = count / versions
        self.apply_us = apply_us / count


async def best(session: Session, model: Model, count: int, make: Make) -> Round:
    """Return the round that took the engine the least time."""
    rounds = [await one_round(session, model, count, make) for _ in range(ROUNDS)]
    return min(rounds, key=lambda found: found.apply_us)


async def one_round(session: Session, model: Model, count: int, make: Make) -> Round:
    """Send requests and return what they took."""
    chain = Chain(open_store(session.settings.store), session.settings.nats.prefix, model.name)
    before = chain.newest_version()
    begin = time.perf_counter()
    summary = await model.send_many((make(n) for n in range(count)), wait="done")
    took_s = time.perf_counter() - begin
    if summary.refused:
        raise SystemExit(f"{summary.refused} requests were refused: {summary.refusals[:3]}")
    manifests = [chain.get(version) for version in range(before + 1, chain.newest_version() + 1)]
    return Round(count, took_s, len(manifests), sum(manifest.step_us["apply"] for manifest in manifests))


if __name__ == "__main__":
    main()
