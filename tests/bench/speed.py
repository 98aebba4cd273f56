"""How fast one model takes requests: `python tests/bench/speed.py [--seconds 60] [--remembered 10000000]`.

Prints one JSON line a figure: `name`, `value`, `unit`, and where it makes sense `baseline`, measured in the same run
on the same machine, and `ratio`. Everything is real: nats-server with `sync_interval: always`, PostgreSQL, a local
store, the dispatcher and a manager as processes.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import duckdb
import numpy as np
from figures import report

from teatree.client.sending.message import Message, encode
from teatree.client.session import Session
from teatree.contracts.formats.manifest import LedgerRef, ManifestKind, ObjectRef
from teatree.contracts.names import new_id
from teatree.contracts.settings import Settings
from teatree.embedded.stack import Stack, StackOptions
from teatree.engine.publish.prepared import new_write_id
from teatree.messaging.batches import BatchPublisher
from teatree.storage.ledger.runs import write_run
from teatree.storage.objects.stores import open_store
from teatree.storage.versions.chain import Chain
from teatree.storage.versions.packs import checksum

COLUMNS = [
    {"name": "id", "type": "BIGINT"},
    {"name": "site", "type": "VARCHAR"},
    {"name": "product", "type": "VARCHAR"},
    {"name": "amount", "type": "DOUBLE"},
]
SINGLE_REQUESTS = 200
BASELINE_ROWS = 2_000


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long each throughput figure runs")
    parser.add_argument("--remembered", type=int, default=10_000_000, help="request ids that the second run remembers")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="teatree-bench-") as folder:
        stack = StackOptions(data=Path(folder) / "data", environ={"TEATREE_MANAGER_IDLE_EXIT_MS": "2500"})
        with Stack(stack) as running:
            asyncio.run(measure(running.settings, Path(folder), options.seconds, options.remembered))


async def measure(settings: Settings, folder: Path, seconds: float, remembered: int) -> None:
    """Measure every figure on a running stack."""
    autocommit = autocommit_rows_per_s(folder / "baseline.duckdb")
    async with Session(settings) as session:
        await session.create_model("fresh", tables=[{"table": "sales", "columns": COLUMNS}])
        grouped = await throughput(session, "fresh", seconds)
        report(
            "grouped_requests_per_s", grouped, "1/s", baseline=autocommit, what="one-row autocommit INSERT into DuckDB"
        )
        single = await single_notices_throughput(session, "fresh", seconds / 3)
        report("single_notice_requests_per_s", single, "1/s", baseline=autocommit, what="one-row autocommit INSERT")
        health = await model_health(session, "fresh")
        report("manager_memory_peak", health["memory_bytes_peak"] / 1e6, "MB")
        await latency(session, settings)
        await memory_of_old_model(session, settings, folder, remembered)
        old = await throughput(session, "old", seconds)
        report("grouped_requests_per_s_remembering", old, "1/s", baseline=grouped, what=f"without {remembered} ids")


async def throughput(session: Session, name: str, seconds: float) -> float:
    """Return one-row appends a second, sent as a group, from the first publish to the last `done` received."""
    begin = time.perf_counter()
    summary = await session.model(name).send_many(one_row_appends(begin + seconds), wait="done")
    took = time.perf_counter() - begin
    if summary.refused:
        raise SystemExit(f"{summary.refused} requests were refused: {summary.refusals[:3]}")
    return summary.sent / took


async def single_notices_throughput(session: Session, name: str, seconds: float) -> float:
    """Return one-row appends a second with one notice for each request instead of one a version."""
    bus = session.bus
    received = asyncio.Event()
    count = sent = 0

    def receive(subject: bytes, _reply: bytes, _headers: bytes | None, _body: bytes) -> None:
        nonlocal count
        count += subject.endswith(b".done")
        received.set()

    stop = await bus.subscribe_sink(bus.subjects.notify_model(name), receive)
    publisher = BatchPublisher(bus)
    begin = time.perf_counter()
    for chunk in batched(one_row_appends(begin + seconds), 1_000):
        requests = [encode(m, bus.subjects, name, "bench", size_bytes_max=bus.payload_bytes_max()) for m in chunk]
        await publisher.put([(r.subject, r.body, r.headers) for r in requests])
        sent += len(requests)
    while count < sent:
        received.clear()
        await asyncio.wait_for(received.wait(), 60)
    took = time.perf_counter() - begin
    await stop()
    return sent / took


def batched(items: Iterator[Message], size: int) -> Iterator[list[Message]]:
    """Yield lists of up to `size` items."""
    while chunk := list(itertools.islice(items, size)):
        yield chunk


def one_row_appends(until: float) -> Iterator[Message]:
    """Yield appends until the time is over."""
    number = 0
    while time.perf_counter() < until:
        for _ in range(1_000):
            number += 1
            row = {"id": number, "site": f"site-{number % 40}", "product": f"product-{number % 900}", "amount": 1.25}
            yield Message("append", {"table": "sales", "rows": [row]})


async def latency(session: Session, settings: Settings) -> None:
    """Measure single requests to an idle model, and the first one to a model without a manager."""
    model = await session.create_model("idle", tables=[{"table": "sales", "columns": COLUMNS}])
    took: list[float] = []
    for number in range(SINGLE_REQUESTS):
        begin = time.perf_counter()
        await model.append("sales", [{"id": number, "site": "a", "product": "b", "amount": 1.0}])
        took.append((time.perf_counter() - begin) * 1000)
        await asyncio.sleep(0.02)
    health = await model_health(session, "idle")
    fsync = fsync_ms(settings.data)
    report("idle_request_to_done_median", statistics.median(took), "ms", baseline=fsync, what="one fsync")
    report("idle_request_to_done_p95", sorted(took)[int(len(took) * 0.95)], "ms")
    report("idle_manager_memory", health["memory_bytes"] / 1e6, "MB")
    stopped: list[float] = []
    for number in range(3):
        await until_stopped(settings, "idle")
        begin = time.perf_counter()
        await model.append("sales", [{"id": number, "site": "a", "product": "b", "amount": 1.0}])
        stopped.append((time.perf_counter() - begin) * 1000)
    start = python_start_ms()
    report(
        "stopped_model_first_request_median", statistics.median(stopped), "ms", baseline=start, what="Python's start"
    )


async def memory_of_old_model(session: Session, settings: Settings, folder: Path, remembered: int) -> None:
    """Make a model that remembers many ids: its ledger gets a run of them, under a fence that carries it."""
    await session.create_model("old", tables=[{"table": "sales", "columns": COLUMNS}])
    await until_stopped(settings, "old")
    chain = Chain(open_store(settings.store), settings.nats.prefix, "old")
    newest = chain.newest()
    if newest is None or not remembered:
        return
    path = folder / "ids.run"
    hashes = np.random.default_rng(7).integers(0, 2**63, remembered, dtype="<u8")
    write_run(path, hashes, np.full(remembered, 2, "<u8"), datetime.now(UTC))
    body = path.read_bytes()
    ref = ObjectRef(f"outcomes/{1:020d}-bench.run", len(body), checksum(body), remembered)
    chain.store.put(chain.key(ref.key), path)
    chain.create(
        attrs.evolve(
            newest,
            version=newest.version + 1,
            write_id=new_write_id(),
            parent_write_id=newest.write_id,
            kind=ManifestKind.FENCE,
            epoch=newest.version + 1,
            pack=None,
            outcomes=None,
            changed_tables=(),
            ledger=LedgerRef(runs=(ref, *newest.ledger.runs), tail=newest.ledger.tail),
        )
    )


async def until_stopped(settings: Settings, name: str) -> None:
    """Wait until a model's manager has left."""
    while (settings.data / name / "manager.json").exists():  # noqa: ASYNC110  another process's file
        await asyncio.sleep(0.1)


async def model_health(session: Session, name: str) -> dict[str, Any]:
    """Return a manager's health."""
    bus = session.bus
    reply = await bus.request(bus.subjects.query(name, "health"), b"{}", {}, timeout_ms=10_000)
    found: dict[str, Any] = json.loads(reply.body)
    return found


def autocommit_rows_per_s(path: Path) -> float:
    """Return one-row autocommit inserts a second into a plain DuckDB file: what one has without Teatree."""
    with duckdb.connect(str(path)) as con:
        con.execute("CREATE TABLE sales(id BIGINT, site VARCHAR, product VARCHAR, amount DOUBLE)")
        begin = time.perf_counter()
        for number in range(BASELINE_ROWS):
            con.execute("INSERT INTO sales VALUES (?, ?, ?, ?)", (number, "a", "b", 1.25))
        return BASELINE_ROWS / (time.perf_counter() - begin)


def fsync_ms(folder: Path) -> float:
    """Return the median time of a small write and fsync on the data folder's disk."""
    took: list[float] = []
    with (folder / f"fsync-{new_id()}").open("wb") as file:
        for _ in range(50):
            begin = time.perf_counter()
            file.write(b"x" * 256)
            file.flush()
            os.fsync(file.fileno())
            took.append((time.perf_counter() - begin) * 1000)
    return statistics.median(took)


def python_start_ms() -> float:
    """Return the time to start Python and the libraries that a manager needs."""
    took: list[float] = []
    for _ in range(3):
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import duckdb, pyarrow, nats, psycopg"], check=True)
        took.append((time.perf_counter() - begin) * 1000)
    return statistics.median(took)


if __name__ == "__main__":
    main()
