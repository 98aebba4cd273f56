"""Real data through the whole stack: `python tests/real_data.py FILE.parquet [--kills N] [--data DIR]`.

FILE holds sales lines with the columns invoice, product, description, quantity, invoiced_at, unit_price, customer and
site, without a key, exact duplicates among them. They are sent day by day through NATS: most days as Arrow, some as
JSON, one as one-row requests in bulk, by several senders at once, to a stack with a real S3 server. With `--kills` the
manager is killed with SIGKILL as often, spread over the run. Then the newest version (pulled from S3), the Parquet
archive and PostgreSQL are compared with the file: one line a check. The exit code is 1 if one failed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from attrs import define, field, frozen

from teatree.client.model import Model
from teatree.client.sending.message import Message
from teatree.client.sending.receipt import Receipt
from teatree.client.session import Session, connect
from teatree.contracts.environment import connection_environ, process_environ, read_settings
from teatree.contracts.process import read_process
from teatree.contracts.settings import Settings
from teatree.embedded.stack import Stack, StackOptions
from teatree.storage.archives import read_archive
from teatree.storage.catalog.postgres import Postgres
from teatree.storage.model_folder import model_folder

TABLE = "lines"
COLUMNS = {
    "invoice": "VARCHAR",
    "product": "VARCHAR",
    "description": "VARCHAR",
    "quantity": "INTEGER",
    "invoiced_at": "TIMESTAMP",
    "unit_price": "DOUBLE",
    "customer": "BIGINT",
    "site": "VARCHAR",
}
SENDERS = 3
JSON_EVERY_DAYS = 5
JSON_ROWS = 400
"""Rows of a JSON request."""
ARROW_BYTES_MAX = 700_000
"""Bytes of an Arrow request's rows in memory: well below the server's `max_payload`."""
CATALOG_WAIT_S = 60
POLL_S = 0.005
# Prices have at most three digits after the point: as decimals their sum does not depend on its order.
SUMS = {
    "rows": "count(*)",
    "sum of quantity": "sum(quantity)",
    "sum of unit_price * quantity": "sum(unit_price::DECIMAL(18, 6) * quantity)",
    "NULL customers": "count(*) FILTER (customer IS NULL)",
    "NULL descriptions": "count(*) FILTER (description IS NULL)",
}


@frozen
class DailyLines:
    """One day's lines, and how they are to be sent."""

    date: str
    rows: pa.Table
    way: str


@define
class SendRun:
    """Requests that were sent, and their outcomes."""

    days: int
    receipts: list[Receipt] = field(factory=list)
    """The outcomes of requests that were sent one by one."""
    bulk_requests: int = 0
    done_days: int = 0
    requests_by_way: dict[str, int] = field(factory=dict)
    kills_ms: list[float] = field(factory=list)
    """For each kill, the milliseconds until the next manager worked."""


class Checks:
    """Prints one line for each comparison."""

    def __init__(self) -> None:
        self.failed = 0

    def equal(self, what: str, expected: object, found: object) -> None:
        """Compare two values and print the result."""
        good = expected == found
        self.failed += not good
        print(f"{'ok    ' if good else 'FAILED'}  {what:<58} expected {expected}, found {found}", flush=True)


def read_days(file: Path) -> list[DailyLines]:
    """Return the file's lines by day, in the file's order; the shortest day is sent as one line a request."""
    lines = pq.read_table(file, columns=list(COLUMNS))
    days_of_lines = lines.column("invoiced_at").cast(pa.date32())
    by_date = {day: lines.filter(pc.equal(days_of_lines, day)) for day in days_of_lines.unique().sort()}
    shortest = min(by_date, key=lambda date: by_date[date].num_rows)
    days = []
    for place, (date, rows) in enumerate(by_date.items()):
        way = "one by one" if date == shortest else "JSON" if place % JSON_EVERY_DAYS == 2 else "Arrow"
        days.append(DailyLines(str(date), rows, way))
    return days


def as_json(rows: pa.Table) -> list[dict[str, Any]]:
    """Return rows as JSON values."""
    return [{**row, "invoiced_at": row["invoiced_at"].isoformat()} for row in rows.to_pylist()]


def pieces(rows: pa.Table, rows_max: int) -> Iterator[pa.Table]:
    """Yield rows in pieces."""
    for start in range(0, rows.num_rows, rows_max):
        yield rows.slice(start, rows_max)


async def send_day(model: Model, day: DailyLines, run: SendRun) -> None:
    """Send a day's lines and wait until they are done."""
    match day.way:
        case "one by one":
            items = [
                Message("append", {"table": TABLE}, [row], None, f"{day.date}-{place}")
                for place, row in enumerate(as_json(day.rows))
            ]
            summary = await model.send_many(items, wait="done")
            if summary.refused:
                raise RuntimeError(f"Of {day.date} {summary.refused} requests were refused: {summary.refusals[:3]}")
            run.bulk_requests += len(items)
            sent = len(items)
        case way:
            rows_max = JSON_ROWS if way == "JSON" else max(1, ARROW_BYTES_MAX * day.rows.num_rows // day.rows.nbytes)
            parts = list(pieces(day.rows, rows_max))
            for place, part in enumerate(parts):
                rows = as_json(part) if way == "JSON" else part
                receipt = await model.append(TABLE, rows, request_id=f"{day.date}-{way}-{place}")
                run.receipts.append(receipt)
            sent = len(parts)
    run.requests_by_way[day.way] = run.requests_by_way.get(day.way, 0) + sent
    run.done_days += 1


async def until_done(run: SendRun, days: int) -> None:
    """Wait until this many days are done."""
    while run.done_days < days:  # noqa: ASYNC110 - polling is enough here
        await asyncio.sleep(POLL_S)


async def kill_managers(data: Path, name: str, run: SendRun, kills: int) -> None:
    """Kill the manager as often as asked, spread over the days."""
    file = model_folder(data, name).process
    for kill in range(1, kills + 1):
        await until_done(run, run.days * kill // (kills + 1))
        while read_process(file) is None:  # noqa: ASYNC110 - another process's file
            await asyncio.sleep(POLL_S)
        process = read_process(file)
        if process is None:
            raise RuntimeError("The manager ended before it could be killed.")
        done, at_s = run.done_days, time.monotonic()
        os.kill(process.pid, signal.SIGKILL)
        await until_done(run, done + 1)
        run.kills_ms.append((time.monotonic() - at_s) * 1000)
        print(f"killed pid {process.pid} after {done} days; the next day was done {run.kills_ms[-1]:.0f} ms later")


async def send_all(model: Model, days: list[DailyLines], data: Path, kills: int) -> SendRun:
    """Send all days, by several senders at once."""
    run = SendRun(days=len(days))
    waiting = iter(days)

    async def send() -> None:
        for day in waiting:
            await send_day(model, day, run)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(kill_managers(data, model.name, run, kills))
        for _ in range(SENDERS):
            tasks.create_task(send())
    return run


# --- the checks ---


def compare(checks: Checks, where: str, file: Path, lines: str, con: duckdb.DuckDBPyConnection) -> None:
    """Compare a relation of lines with the file: sums, lines by site, and every line with its duplicates."""
    for what, sql in SUMS.items():
        (expected,), (found,) = (con.sql(f"SELECT {sql} FROM {of}").fetchall() for of in (f"'{file}'", lines))
        checks.equal(f"{where}: {what}", str(expected[0]), str(found[0]))
    by_site = "SELECT site, count(*) FROM {} GROUP BY ALL ORDER BY ALL"
    expected_sites, found_sites = (dict(con.sql(by_site.format(of)).fetchall()) for of in (f"'{file}'", lines))
    differing = sum(expected_sites.get(s) != found_sites.get(s) for s in {*expected_sites, *found_sites})
    checks.equal(f"{where}: sites", len(expected_sites), len(found_sites))
    checks.equal(f"{where}: sites with another number of lines", 0, differing)
    columns = ", ".join(COLUMNS)
    for what, one, other in (("missing", f"'{file}'", lines), ("too many", lines, f"'{file}'")):
        difference = f"SELECT {columns} FROM {one} EXCEPT ALL SELECT {columns} FROM {other}"
        found = con.sql(f"SELECT count(*) FROM ({difference})").fetchall()[0][0]
        checks.equal(f"{where}: lines {what}, duplicates counted", 0, found)


async def check_versions(checks: Checks, session: Session, model: Model, file: Path, barrier: Receipt) -> None:
    """Check the newest version as pulled, the archive, and a direct read."""
    with tempfile.TemporaryDirectory(prefix="teatree-pulled-") as folder:
        path = Path(folder) / "pulled.duckdb"
        await model.pull(path)
        with duckdb.connect(str(path), read_only=True) as con:
            compare(checks, "newest version", file, TABLE, con)
            (expected,) = con.sql(f"SELECT count(*) FROM '{file}'").fetchall()[0]
        archived = await asyncio.to_thread(read_archive, model.chain(), barrier.version or 0)
        checks.equal("archive: there at the version of its barrier", True, archived is not None)
        if archived is not None:
            parquet = Path(folder) / "lines.parquet"
            parquet.write_bytes(await session.read_object(model.chain().key(archived.files[TABLE].key)))
            with duckdb.connect() as con:
                compare(checks, "archive", file, f"'{parquet}'", con)
    answer = await model.query(f"SELECT count(*) AS rows FROM {TABLE}")
    checks.equal("direct read: rows", expected, answer.to_arrow().column("rows")[0].as_py())


def check_catalog(checks: Checks, settings: Settings, model: Model, run: SendRun, barrier: Receipt, rows: int) -> None:
    """Check PostgreSQL, which lags: wait until it has reached the barrier."""
    postgres = Postgres(settings.postgres)
    parameters = {"id": model.chain().goal_model_id, "table": TABLE, "seq": barrier.seq}
    deadline_s = time.monotonic() + CATALOG_WAIT_S
    while True:
        with postgres.transaction() as session:
            (head,) = session.rows("SELECT * FROM goal_model WHERE goal_model_id = %(id)s", parameters)
        if head["applied_offset"] >= barrier.seq or time.monotonic() > deadline_s:
            break
        time.sleep(0.05)
    with postgres.transaction() as session:
        versions = session.rows(
            "SELECT count(*) AS number, min(version) AS first, max(version) AS last FROM goal_model_version"
            " WHERE goal_model_id = %(id)s",
            parameters,
        )[0]
        parquet = session.rows(
            "SELECT rows FROM content_index WHERE goal_model_id = %(id)s AND kind = 'parquet'"
            " AND table_name = %(table)s ORDER BY version DESC LIMIT 1",
            parameters,
        )
        states = session.rows(
            "SELECT state, function, count(*) AS number, count(DISTINCT seq) AS seqs,"
            " sum((result->>'rows')::bigint) AS rows FROM request_log"
            " WHERE goal_model_id = %(id)s AND seq <= %(seq)s GROUP BY state, function",
            parameters,
        )
    postgres.close()
    tables = {table["name"]: table["rows"] for table in head["tables"]}
    appends = len(run.receipts) + run.bulk_requests
    done = {s["function"]: s for s in states if s["state"] == "done"}
    checks.equal("PostgreSQL: rows of the newest version", rows, tables.get(TABLE))
    checks.equal("PostgreSQL: rows of the newest Parquet file", rows, parquet[0]["rows"] if parquet else None)
    checks.equal("PostgreSQL: sum of rows in the requests' outcomes", rows, int(done["append"]["rows"]))
    checks.equal("PostgreSQL: append requests done, each once", appends, done["append"]["number"])
    checks.equal("PostgreSQL: requests that are not done", 0, sum(s["number"] for s in states if s["state"] != "done"))
    checks.equal("PostgreSQL: sequences of all requests", appends + 2, sum(s["seqs"] for s in states))
    checks.equal("PostgreSQL: versions, gapless from 1", (versions["last"], 1), (versions["number"], versions["first"]))
    checks.equal("PostgreSQL: its newest version is the chain's", model.chain().newest_version(), versions["last"])


async def play(settings: Settings, file: Path, kills: int) -> int:
    """Send, then check; return the number of failed checks."""
    days = await asyncio.to_thread(read_days, file)
    rows = sum(day.rows.num_rows for day in days)
    async with connect(settings=settings) as session:
        name = f"retail_{int(time.time())}"
        model = await session.create_model(name, tables=[{"table": TABLE, "columns": as_columns()}])
        begin_s = time.monotonic()
        run = await send_all(model, days, settings.data, kills)
        sent_s = time.monotonic() - begin_s
        barrier = await model.archive(timeout_ms=120_000)
        ways = ", ".join(f"{number} {way}" for way, number in sorted(run.requests_by_way.items()))
        print(f"{rows} lines of {len(days)} days in {ways} requests, {sent_s:.1f} s; version {barrier.version}")
        checks = Checks()
        checks.equal("kills", kills, len(run.kills_ms))
        checks.equal("outcomes received: rows", rows - bulk_rows(days), sum(r.result["rows"] for r in run.receipts))
        await check_versions(checks, session, model, file, barrier)
        await asyncio.to_thread(check_catalog, checks, settings, model, run, barrier, rows)
    print(f"{checks.failed} checks failed" if checks.failed else "all checks agree")
    return checks.failed


def as_columns() -> list[dict[str, str]]:
    """Return the columns as `create_model` takes them."""
    return [{"name": name, "type": kind} for name, kind in COLUMNS.items()]


def bulk_rows(days: list[DailyLines]) -> int:
    """Return the lines that are sent one a request."""
    return sum(day.rows.num_rows for day in days if day.way == "one by one")


def main() -> int:
    """Start the stack, run, stop it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--kills", type=int, default=0, help="times that the manager is killed with SIGKILL")
    parser.add_argument("--data", type=Path, help="the stack's folder, kept afterwards; a temporary one if left out")
    args = parser.parse_args()
    outside = set(connection_environ(read_settings({}, Path("/nonexistent")))) | {"TEATREE_DATA"}
    environ = {name: value for name, value in process_environ().items() if name not in outside}
    folder = nullcontext(str(args.data)) if args.data else tempfile.TemporaryDirectory(prefix="teatree-real-")
    with folder as data, Stack(StackOptions(data=Path(data), s3=True, environ=environ)) as stack:
        return min(1, asyncio.run(play(stack.settings, args.file.absolute(), args.kills)))


if __name__ == "__main__":
    sys.exit(main())
