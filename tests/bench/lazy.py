"""What reading a version lazily costs: `python tests/bench/lazy.py [--gigabytes 2] [--s3]`.

Prints one JSON line a figure, as `speed.py` does. The model is made of generated rows in a sorted table; its versions
are stored in a local folder or, with `--s3`, on a real S3 server. The baseline of every query is the same query on an
ordinary local file of the same version, measured in the same run.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
from attrs import evolve

sys.path.insert(0, str(Path(__file__).parents[1]))

from figures import report

from published import PublishedModel
from servers import TestServers, file_store
from teatree.client.versions.attach import attach_chain
from teatree.client.versions.pull import pull_version
from teatree.contracts.settings import Settings, StoreSettings

ROWS_PER_GIGABYTE = 35_750_000
COLUMNS = {"id": "BIGINT", "site": "VARCHAR", "product": "VARCHAR", "amount": "DOUBLE", "code": "VARCHAR"}
STEP_ROWS = 5_000_000
LOOK_UP = "SELECT * FROM {}sales WHERE id = {}"
SCAN = "SELECT count(*), sum(id), min(site), max(product), sum(amount), max(code) FROM {}sales"
REPEATS = 5


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=2.0, help="size of the model's file")
    parser.add_argument("--s3", action="store_true", help="store versions in a real S3 server")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="teatree-bench-") as name:
        folder = Path(name)
        with store(folder, s3=options.s3) as settings:
            measure(settings, folder, int(options.gigabytes * ROWS_PER_GIGABYTE))


@contextmanager
def store(folder: Path, *, s3: bool) -> Iterator[StoreSettings]:
    """Yield a store."""
    if not s3:
        yield file_store(folder / "store")
        return
    servers = TestServers(folder / "servers")
    try:
        yield servers.fresh_bucket_prefix()
    finally:
        servers.stop()


def measure(settings: StoreSettings, folder: Path, rows: int) -> None:
    """Measure every figure."""
    with PublishedModel(settings, folder) as model:
        model.create({"sales": COLUMNS})
        fill(model, rows)
        file = folder / "local.duckdb"
        begin = time.perf_counter()
        pulled = pull_version(model.chain, file)
        took = time.perf_counter() - begin
        size = pulled.size_bytes
        report("file_size", size / 1e6, "MB")
        report("first_pull", took, "s", copy_s(file, folder / "copy.duckdb"), "copying the file")
        lazy = evolve(model.settings, cache_folder=folder / "cache")
        first_look_up(model, lazy, file, rows, size)
        scans(model, lazy, file)
        later_pull(model, file, rows)


def fill(model: PublishedModel, rows: int) -> None:
    """Publish the rows, sorted by `id`."""
    for first in range(0, rows, STEP_ROWS):
        count = min(STEP_ROWS, rows - first)
        model.sql(
            f"INSERT INTO sales SELECT {first} + range, 'site-' || (hash(range) % 40), "
            f"'product-' || (hash(range) % 9000), random() * 1000, md5((range + {first})::VARCHAR) FROM range({count})"
        )


def first_look_up(model: PublishedModel, lazy: Settings, file: Path, rows: int, size: int) -> None:
    """Measure one row's look-up by a reader with an empty cache."""
    with duckdb.connect() as con:
        begin = time.perf_counter()
        attached = attach_chain(con, model.chain, lazy)
        found = con.execute(LOOK_UP.format("sales.", rows // 3)).fetchall()
        took = (time.perf_counter() - begin) * 1000
        report("first_look_up_moved", attached.stats().fetched_bytes, "B", size, "the whole file")
        report("first_look_up", took, "ms", local_ms(file, LOOK_UP.format("", rows // 3), found), "on a local file")
        attached.detach()


def scans(model: PublishedModel, lazy: Settings, file: Path) -> None:
    """Measure full scans: without a cache, again in one connection, and with the blocks in the cache on disk.

    Lazy and local scans take turns, so that other load on the machine affects both.
    """
    opened_scan(file)  # the local file's pages are in memory
    with duckdb.connect() as con, local_connection(file) as local:
        attached = attach_chain(con, model.chain, lazy)
        cold_local, expected = timed(local, SCAN.format(""))
        cold, answer = timed(con, SCAN.format("sales."))
        check(answer, expected)
        report("cold_full_scan", cold, "ms", cold_local, "on a local file, opened anew")
        stats = attached.stats()
        report("cold_full_scan_reads", stats.reads, "range reads", stats.fetched_blocks, "blocks fetched")
        turns = [(timed(con, SCAN.format("sales."))[0], timed(local, SCAN.format(""))[0]) for _ in range(REPEATS)]
        report_turns("warm_full_scan", turns, "on a local file, again in one connection")
        attached.detach()
    turns = []
    moved = 0
    for _ in range(REPEATS):
        with duckdb.connect() as con:
            attached = attach_chain(con, model.chain, lazy)
            took, answer = timed(con, SCAN.format("sales."))
            check(answer, expected)
            moved += attached.stats().fetched_bytes
            attached.detach()
        turns.append((took, opened_scan(file)[0]))
    report_turns("full_scan_from_cache_on_disk", turns, "on a local file, opened anew")
    report("full_scan_from_cache_on_disk_moved", moved / REPEATS, "B")


def later_pull(model: PublishedModel, file: Path, rows: int) -> None:
    """Measure the pull after 1,000 more rows."""
    manifest = model.sql(
        f"INSERT INTO sales SELECT {rows} + range, 'site-1', 'product-1', random(), md5(random()::VARCHAR) "
        "FROM range(1000)"
    )
    begin = time.perf_counter()
    pulled = pull_version(model.chain, file)
    took = time.perf_counter() - begin
    changed = pulled.fetched_blocks * manifest.blocks.block_bytes if manifest.blocks else 0
    pack = manifest.pack.size_bytes if manifest.pack else 0
    report("later_pull_moved", pulled.moved_bytes + len(manifest.to_json()), "B", changed, "the changed blocks")
    report("later_pull_moved_but_manifest", pulled.moved_bytes, "B", pack, "the pack that the change made")
    report("later_pull", took, "s", copy_s(file, file.with_name("copy.duckdb")), "copying the file")


def local_connection(file: Path) -> duckdb.DuckDBPyConnection:
    """Open the ordinary file."""
    return duckdb.connect(str(file), read_only=True)


def local_ms(file: Path, sql: str, expected: Any) -> float:
    """Return the milliseconds that opening and querying the ordinary file takes."""
    begin = time.perf_counter()
    with local_connection(file) as con:
        found = con.execute(sql).fetchall()
    took = (time.perf_counter() - begin) * 1000
    check(found, expected)
    return took


def opened_scan(file: Path) -> tuple[float, Any]:
    """Return the milliseconds of a scan of the ordinary file by a new connection, and its rows."""
    with local_connection(file) as con:
        return timed(con, SCAN.format(""))


def timed(con: duckdb.DuckDBPyConnection, sql: str) -> tuple[float, Any]:
    """Return the milliseconds that a query takes, and its rows."""
    begin = time.perf_counter()
    found = con.execute(sql).fetchall()
    return (time.perf_counter() - begin) * 1000, found


def copy_s(file: Path, target: Path) -> float:
    """Return the seconds that a plain, synced copy of the file takes."""
    import os  # noqa: PLC0415
    import shutil  # noqa: PLC0415

    begin = time.perf_counter()
    shutil.copyfile(file, target)
    with target.open("rb") as copy:
        os.fsync(copy.fileno())
    took = time.perf_counter() - begin
    target.unlink()
    return took


def check(found: Any, expected: Any) -> None:
    """End the benchmark if an answer is wrong: sums of floating point numbers depend on the order of threads."""
    same = all(
        abs(a - b) <= 1e-6 * abs(b) if isinstance(a, float) else a == b
        for row, other in zip(found, expected, strict=True)
        for a, b in zip(row, other, strict=True)
    )
    if not same:
        raise SystemExit(f"a wrong answer: {found}, not {expected}")


def report_turns(name: str, turns: list[tuple[float, float]], what: str) -> None:
    """Print the medians of a figure and its baseline that were measured in turns."""
    report(name, statistics.median(t for t, _ in turns), "ms", statistics.median(b for _, b in turns), what)


if __name__ == "__main__":
    main()
