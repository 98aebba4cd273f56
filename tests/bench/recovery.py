"""How soon a model resumes after a loss: `python tests/bench/recovery.py [--killed-mb 200] [--lost-mb 1000] [--s3]`.

Prints one JSON line a figure: `name`, `value`, `unit`, and `baseline`, measured in the same run on the same machine.
Everything is real: NATS, PostgreSQL, the store, the dispatcher and managers as processes. A manager is killed with
SIGKILL while requests wait; its model's folder is deleted; each time the benchmark waits for the next `done`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import statistics
import tempfile
import time
from collections.abc import Awaitable
from contextlib import suppress
from pathlib import Path

import duckdb
from figures import report

from teatree.client.model import Model
from teatree.client.session import Session
from teatree.contracts.settings import Settings
from teatree.embedded.stack import Stack, StackOptions
from teatree.storage.objects.stores import open_store
from teatree.storage.versions.chain import Chain

KILLS = 10
LOSSES = 5
ROW_BYTES = 16
COLUMNS = [{"name": "id", "type": "BIGINT"}, {"name": "v", "type": "DOUBLE"}]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--killed-mb", type=int, default=200, help="size of the model whose manager is killed")
    parser.add_argument("--lost-mb", type=int, default=1_000, help="size of the model whose folder is deleted")
    parser.add_argument("--s3", action="store_true", help="store in a real S3 server")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="teatree-bench-") as temporary:
        folder = Path(temporary)
        environ = {"TEATREE_LOAD_ROOTS": str(folder / "load")}
        with Stack(StackOptions(data=folder / "data", s3=options.s3, environ=environ)) as running:
            asyncio.run(measure(running.settings, folder, options.killed_mb, options.lost_mb))


async def measure(settings: Settings, folder: Path, killed_mb: int, lost_mb: int) -> None:
    """Measure every figure on a running stack."""
    async with Session(settings) as session:
        await killed(await filled(session, folder, "killed", killed_mb), settings)
        await lost(await filled(session, folder, "lost", lost_mb), settings, folder)


async def filled(session: Session, folder: Path, name: str, size_mb: int) -> Model:
    """Create a model of a size, of numbers that do not compress."""
    source = folder / "load" / f"{name}.parquet"
    source.parent.mkdir(exist_ok=True)
    with duckdb.connect() as con:
        rows = size_mb * 1_000_000 // ROW_BYTES
        con.execute(f"COPY (SELECT (hash(i) >> 1)::BIGINT AS id, random() AS v FROM range({rows}) r(i)) TO '{source}'")
    model = await session.create_model(name, tables=[{"table": "t", "columns": COLUMNS}])
    await model.send("load", {"table": "t", "uri": str(source)}, timeout_ms=300_000)
    source.unlink()
    return model


async def killed(model: Model, settings: Settings) -> None:
    """Measure the time from SIGKILL to the next `done`."""
    await request_s(model)
    idle = [await request_s(model) for _ in range(KILLS)]
    took = []
    for _ in range(KILLS):
        os.kill(manager_pid(settings, model.name), signal.SIGKILL)
        took.append(await request_s(model))
        await asyncio.sleep(1)
    baseline = statistics.median(idle) * 1000
    report(
        "sigkill_to_next_done_median",
        statistics.median(took) * 1000,
        "ms",
        baseline,
        "one request to a running manager",
    )
    report("sigkill_to_next_done_max", max(took) * 1000, "ms", baseline, "one request to a running manager")


async def lost(model: Model, settings: Settings, folder: Path) -> None:
    """Measure the time from the loss of the whole folder to the next `done`; earlier writes are synced first."""
    took, copies = [], []
    for _ in range(LOSSES):
        await model.query("SELECT 1", min_version=(await model.append("t", [{"id": 1, "v": 1.0}])).version)
        await asyncio.to_thread(os.sync)
        copies.append(await timed_s(asyncio.to_thread(copy, settings, model.name, folder / "copy")))
        await asyncio.to_thread(os.sync)
        os.kill(manager_pid(settings, model.name), signal.SIGKILL)
        remove(settings.data / model.name)
        took.append(await request_s(model))
        await asyncio.sleep(1)
    report(
        "lost_folder_to_next_done_median",
        statistics.median(took),
        "s",
        statistics.median(copies),
        "copying the objects of the newest version from the store, synced",
    )


def remove(folder: Path) -> None:
    """Remove a folder whose killed manager's successor may write into it already."""
    while folder.exists():
        with suppress(OSError):
            shutil.rmtree(folder)
            return


def copy(settings: Settings, name: str, folder: Path) -> None:
    """Copy every pack of a model to the disk."""
    chain = Chain(open_store(settings.store), settings.nats.prefix, name)
    folder.mkdir()
    for number, info in enumerate(chain.store.list(chain.key("packs/"))):
        path = folder / str(number)
        chain.store.download(info.key, path)
        with path.open("rb") as file:
            os.fsync(file.fileno())
    shutil.rmtree(folder)


async def request_s(model: Model) -> float:
    """Return the seconds from sending a request to its `done`."""
    return await timed_s(model.append("t", [{"id": 1, "v": 1.0}], timeout_ms=120_000))


async def timed_s(work: Awaitable[object]) -> float:
    """Return the seconds that some work takes."""
    begin = time.perf_counter()
    await work
    return time.perf_counter() - begin


def manager_pid(settings: Settings, name: str) -> int:
    """Return the pid of a model's manager."""
    return int(json.loads((settings.data / name / "manager.json").read_bytes())["pid"])


if __name__ == "__main__":
    main()
