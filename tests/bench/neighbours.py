"""How much one user's requests slow down another's: `python tests/bench/neighbours.py [--seconds 60]`.

Prints one JSON line a figure: how long a colleague's append takes to be `done`, and a colleague's small direct read to
be answered, at the median and at most, alone and beside each kind of hostile load: repeated keys, requests beyond the
limits of rows and memory, requests and reads that never end. The model's time limits are 3 s, as `LIMITS` has them.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from figures import report

from teatree.client.model import Model
from teatree.client.sending.message import Message
from teatree.client.session import connect
from teatree.contracts.errors import TeatreeError
from teatree.embedded.stack import Stack, StackOptions

LIMITS = {"query_time_ms_max": 3_000, "request_time_ms_max": 3_000}
TABLES = [
    {
        "table": "t",
        "columns": [{"name": "id", "type": "BIGINT"}, {"name": "v", "type": "VARCHAR"}],
        "primary_key": ["id"],
    }
]
NEVER = "SELECT levenshtein(repeat('a', 1000000), repeat('b', 1000000)) AS id"
TOO_BIG = "INSERT INTO t SELECT 1000000000 + range, repeat('x', 1000000) FROM range(2000)"
ONE_CALL = "INSERT INTO t SELECT 1000000000, repeat('x', 3000000000)"
SLOW = "SELECT count(*) FROM range(40000) a, range(60000) b WHERE (a.range * b.range) % 7 = 3"
REFUSED = 2_000

Load = Callable[[Model], Awaitable[object]]


async def nothing(_: Model) -> None:
    """Put no load on the model."""
    await asyncio.sleep(0.1)


async def refused_keys(model: Model) -> None:
    """Send appends of which half repeat a key."""
    items = [("append", {"table": "t", "rows": [{"id": 10**12 + i if i % 2 else 1}]}) for i in range(REFUSED)]
    await model.send_many([Message(f, a) for f, a in items], wait="done")


async def refused_keys_by_sql(model: Model) -> None:
    """Send INSERT statements of which half repeat a key."""
    statement = "INSERT INTO t (id) VALUES (?)"
    items = [{"statement": statement, "parameters": [2 * 10**12 + i if i % 2 else 1]} for i in range(REFUSED)]
    await model.send_many([Message("sql", a) for a in items], wait="done")


async def too_big(model: Model) -> None:
    """Send a statement with more rows than a request may have."""
    await model.send("sql", {"statement": TOO_BIG})


async def one_call(model: Model) -> None:
    """Send a statement that takes gigabytes in one call of one function."""
    await model.send("sql", {"statement": ONE_CALL})


async def never_ending(model: Model) -> None:
    """Send a query through the log that DuckDB does not interrupt."""
    await model.send("query", {"sql": NEVER})


async def never_ending_reads(model: Model) -> None:
    """Ask for direct reads that DuckDB does not interrupt."""
    await model.query(NEVER)


async def slow_reads(model: Model) -> None:
    """Ask for six slow direct reads at once."""
    await asyncio.gather(*(model.query(SLOW) for _ in range(6)), return_exceptions=True)


LOADS: dict[str, Load] = {
    "alone": nothing,
    "refused_keys": refused_keys,
    "refused_keys_by_sql": refused_keys_by_sql,
    "too_big": too_big,
    "one_call": one_call,
    "never_ending": never_ending,
    "never_ending_reads": never_ending_reads,
    "slow_reads": slow_reads,
}


async def repeat(load: Load, model: Model) -> None:
    """Put a load on a model until cancelled, two seconds between its requests; their errors are ignored."""
    while True:
        with suppress(TeatreeError):
            await load(model)
        await asyncio.sleep(2)


async def timed(work: Callable[[int], Awaitable[object]], seconds: float) -> list[float]:
    """Call a function repeatedly for some seconds; return how long each call took."""
    took: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        begin = time.perf_counter()
        await work(len(took))
        took.append(time.perf_counter() - begin)
        await asyncio.sleep(0.1)
    return took


async def measure(name: str, load: Load, seconds: float, data: Path, first_id: int) -> None:
    """Measure a colleague's appends and reads beside a load."""
    async with connect(data=data) as hostile, connect(data=data) as colleague:
        model = colleague.model("m")
        task = asyncio.create_task(repeat(load, hostile.model("m")))
        try:
            appends, reads = await asyncio.gather(
                timed(lambda n: model.append("t", [{"id": first_id + n}], wait="done", timeout_ms=60_000), seconds),
                timed(lambda _: model.query("SELECT count(*) FROM t WHERE id < 10", min_version=1), seconds),
            )
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    for what, took in (("append", appends), ("read", reads)):
        report(f"colleagues_{what}_median_beside_{name}", statistics.median(took), "s")
        report(f"colleagues_{what}_longest_beside_{name}", max(took), "s")


async def run(data: Path, seconds: float) -> None:
    """Measure beside every load."""
    async with connect(data=data) as session:
        await session.create_model("m", tables=TABLES, limits=LIMITS)
        await session.model("m").append("t", [{"id": 1}], wait="done")
    for place, (name, load) in enumerate(LOADS.items(), 1):
        await measure(name, load, seconds, data, place * 10**7)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long each load runs")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="teatree-bench-") as folder:
        data = Path(folder) / "data"
        with Stack(StackOptions(data=data)):
            asyncio.run(run(data, options.seconds))


if __name__ == "__main__":
    main()
