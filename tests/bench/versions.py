"""What a version costs: `python tests/bench/versions.py [--small-mb 200] [--large-mb 2000] [--versions 500] [--s3]`.

Prints one JSON line a figure: `name`, `value`, `unit`, and where there is one `baseline`, measured in the same run on
the same machine, what it is, and `ratio`. Versions are made by the writer that managers use, in this process, and
stored in a local folder, or with `--s3` in a real S3 server.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import attrs
import numpy as np
import pyarrow as pa
from typing_extensions import override

sys.path.insert(0, str(Path(__file__).parent.parent))

from figures import report

from published import LIMITS, PublishedModel
from servers import TestServers, file_store
from teatree.contracts.formats.manifest import Manifest
from teatree.contracts.probe import NO_PROBE
from teatree.contracts.settings import ManagerSettings, StoreSettings
from teatree.engine.duckdb.data import PackedContent
from teatree.engine.local.versions import LocalVersions
from teatree.engine.publish.prepared import PreparedVersion
from teatree.storage.model_folder import ModelFolder, model_folder

COLUMNS = {"id": "BIGINT", "a": "BIGINT", "b": "BIGINT", "c": "DOUBLE", "batch": "BIGINT", "amount": "BIGINT"}
ROW_BYTES = 36
"""Bytes of a row in the file: three columns of random words, the others small."""
CHUNK_ROWS = 2_000_000
REQUEST_BYTES_MAX = 200_000_000
APPENDED_ROWS = 1_000
SAMPLES = 15
COPIES = 3


class Measured(PublishedModel):
    """A model whose versions are timed between commit and publication."""

    def __init__(self, store: StoreSettings, folder: Path) -> None:
        super().__init__(store, folder, limits=attrs.evolve(LIMITS, request_bytes_max=REQUEST_BYTES_MAX))
        self.folder: ModelFolder = model_folder(self.settings.data, self.name)
        self.step_ms: dict[str, list[float]] = {"checkpoint": [], "capture": [], "ship": []}
        self.publish_ms: list[float] = []
        self.prepared: PreparedVersion | None = None
        self.batch = 0
        self._time_steps()
        self.create({"sales": COLUMNS})

    def _time_steps(self) -> None:
        capture = self._writer.capture

        def timed_capture(*arguments: object) -> PreparedVersion:
            begin = time.perf_counter()
            self.prepared = capture(*arguments)  # type: ignore[arg-type]
            self.step_ms["capture"].append((time.perf_counter() - begin) * 1000)
            return self.prepared

        self._writer.capture = timed_capture  # type: ignore[method-assign, assignment]

    @override
    def ship(self, prepared: PreparedVersion) -> PreparedVersion:
        begin = time.perf_counter()
        shipped = super().ship(prepared)
        self.step_ms["ship"].append((time.perf_counter() - begin) * 1000)
        self.publish_ms.append(self.step_ms["capture"][-1] + self.step_ms["ship"][-1])
        return shipped

    @property
    def file(self) -> Path:
        """The read-write file."""
        return self.folder.data(self._writer.manifest.epoch, "duckdb")

    def append(self, rows: int) -> Manifest:
        """Append batches of a hundred rows whose amounts cancel out."""
        draw = np.random.default_rng(self.batch)
        batches = rows // 100
        words = [draw.integers(-(2**62), 2**62, rows) for _ in range(2)]
        amounts = np.repeat(draw.integers(-(10**9), 10**9, rows // 2), 2) * np.tile([1, -1], rows // 2)
        columns = {
            "id": np.arange(rows) + self.batch * 100,
            "a": words[0],
            "b": words[1],
            "c": draw.random(rows),
            "batch": np.repeat(np.arange(batches) + self.batch + 1, 100),
            "amount": amounts,
        }
        self.batch += batches
        return self.request("append", {"table": "sales"}, pa.table(columns))

    def grow(self, size_bytes: int) -> None:
        """Append until the file has this size."""
        while (missing := size_bytes - self.file.stat().st_size) > ROW_BYTES * APPENDED_ROWS:
            self.append(max(100, min(CHUNK_ROWS, missing // ROW_BYTES) // 100 * 100))
            for pack in sorted(self.folder.spool.iterdir())[:-8]:
                pack.unlink()


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small-mb", type=int, default=200, help="size of the small model")
    parser.add_argument("--large-mb", type=int, default=2_000, help="size of the large model")
    parser.add_argument("--versions", type=int, default=500, help="versions published while readers query in a loop")
    parser.add_argument("--s3", action="store_true", help="store versions in a real S3 server")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="teatree-bench-") as name:
        folder = Path(name)
        servers = TestServers(folder / "servers")
        try:
            small, large = (
                cost(servers.fresh_bucket_prefix() if options.s3 else file_store(folder / f"store-{mb}"), folder, mb)
                for mb in (options.small_mb, options.large_mb)
            )
            report("commit_to_published_growth", large, "ms", baseline=small, what=f"at {options.small_mb} MB")
            store = servers.fresh_bucket_prefix() if options.s3 else file_store(folder / "store-readers")
            readers(store, folder / "readers", options.versions)
        finally:
            servers.stop()


def cost(store: StoreSettings, folder: Path, size_mb: int) -> float:
    """Measure 1,000 rows appended to a model of a size; return the milliseconds from commit to published."""
    with Measured(store, folder / f"model-{size_mb}") as model:
        model.grow(size_mb * 1_000_000)
        local = LocalVersions(model.chain, model.folder, ManagerSettings(), NO_PROBE)
        local.publish(model.append(APPENDED_ROWS))
        for times in (model.publish_ms, *model.step_ms.values()):
            times.clear()
        uploaded = changed = 0
        local_ms: list[float] = []
        for _ in range(SAMPLES):
            manifest = model.append(APPENDED_ROWS)
            assert model.prepared is not None
            assert isinstance(model.prepared.captured, PackedContent)
            assert manifest.pack is not None
            assert manifest.blocks is not None
            uploaded += manifest.pack.size_bytes + len(model.prepared.segment) + len(manifest.to_json())
            changed += len(model.prepared.captured.capture.blocks) * manifest.blocks.block_bytes
            while (pause_ms := local.pause_ms(manifest)) > 0:
                time.sleep(pause_ms / 1000)
            local_ms.append(timed_ms(lambda manifest=manifest: local.publish(manifest)))  # type: ignore[misc]
        copy_ms = statistics.median(timed_ms(lambda: copy(model.file, folder / "copy")) for _ in range(COPIES))
        publish_ms = statistics.median(model.publish_ms)
        report(f"commit_to_published_{size_mb}mb", publish_ms, "ms", baseline=copy_ms, what="copying the file")
        for step, times in model.step_ms.items():
            if times:
                report(f"{step}_{size_mb}mb", statistics.median(times), "ms")
        report(f"uploaded_{size_mb}mb", uploaded / SAMPLES, "B", baseline=changed / SAMPLES, what="the changed blocks")
        report(
            f"local_version_{size_mb}mb", statistics.median(local_ms), "ms", baseline=copy_ms, what="copying the file"
        )
        local.drop()
    return publish_ms


def readers(store: StoreSettings, folder: Path, versions: int) -> None:
    """Publish versions under two readers: one opens the newest for each query, one keeps each open for a while."""
    script = str(Path(__file__).parent.parent / "version_reader.py")
    with Measured(store, folder) as model:
        settings = ManagerSettings(local_grace_ms=200, local_copy_bytes_max=0)
        local = LocalVersions(model.chain, model.folder, settings, NO_PROBE)
        model.grow(20_000_000)
        local.publish(model.append(APPENDED_ROWS))
        started = [
            subprocess.Popen(
                [sys.executable, script, str(model.folder.root), hold_s],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for hold_s in ("0", "5")
        ]
        for _ in range(versions):
            manifest = model.append(100)
            while (pause_ms := local.pause_ms(manifest)) > 0:
                time.sleep(pause_ms / 1000)
            local.publish(manifest)
            for pack in sorted(model.folder.spool.iterdir())[:-8]:
                pack.unlink()
        found = [reader.communicate()[0].split() for reader in started]
        report("readers_failed", sum(reader.returncode != 0 for reader in started), "readers")
        if all(found):
            report("reader_queries", sum(int(queries) for queries, _ in found), "queries")
            report("reader_versions", int(found[0][1]), "versions", baseline=versions, what="versions published")
        while local.tidy():
            time.sleep(0.05)
        local.close()
        report("local_files_left", len(list(model.folder.versions.iterdir())), "files")


def copy(source: Path, target: Path) -> None:
    """Copy a file, the baseline of a local version."""
    shutil.copyfile(source, target)
    target.unlink()


def timed_ms(work: Callable[[], object]) -> float:
    """Return the milliseconds that some work takes."""
    begin = time.perf_counter()
    work()
    return (time.perf_counter() - begin) * 1000


if __name__ == "__main__":
    main()
