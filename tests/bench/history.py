"""What a long history costs: `python tests/bench/history.py [--versions 10000] [--tables 100] [--s3]`.

Prints one JSON line a figure: `name`, `value`, `unit`, and where there is one `baseline`, measured in the same run on
the same machine, what it is, and `ratio`. Versions are made by the writer that managers use, in this process: each
appends a few rows, and every tenth replaces the content of one table of many, so that blocks scatter over packs.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from figures import report

from published import PublishedModel
from servers import TestServers, file_store
from teatree.client.versions.attach import attach_chain
from teatree.contracts.formats.manifest import Manifest
from teatree.contracts.formats.requests import CONTENT_JSON, Request
from teatree.contracts.names import new_id
from teatree.contracts.settings import RetentionSettings, StoreSettings
from teatree.storage.retention.cleanup import Cleaned, Cleanup
from teatree.storage.retention.pins import pin
from teatree.storage.versions.chain import Chain
from teatree.storage.versions.reader import materialise, read_table

TABLE_ROWS = 16_000
"""Rows of one of the tables: about a block."""
FEW = 10
"""Versions of the young model that the old one is compared with."""
SAMPLES = 15
MORE_VERSIONS = 200


class AgingModel(PublishedModel):
    """A model with a growing history."""

    def __init__(self, store: StoreSettings, folder: Path, name: str, tables: int) -> None:
        super().__init__(store, folder, name)
        self._folder = folder
        self._tables = tables
        self._random = random.Random(1)
        self.took_ms: list[float] = []
        self.pack_bytes: list[int] = []
        self.create({"log": {"id": "BIGINT", "v": "BIGINT"}, **{f"t{i}": {"v": "DOUBLE"} for i in range(tables)}})
        self._fill()

    def _fill(self) -> None:
        """Fill all tables in one version."""
        requests = []
        for number in range(self._tables):
            self._seq += 1
            body = json.dumps({"statement": _filling(f"t{number}")}).encode()
            made = Request(self.name, "sql", self._seq, datetime.now(UTC), new_id(), body, content_type=CONTENT_JSON)
            requests.append(made)
        self.publish(self.writer.apply(requests))

    def grow(self, versions: int) -> Manifest:
        """Publish versions; return the last one's manifest."""
        for number in range(versions):
            begin = time.perf_counter()
            if number % 10 == 9:
                table = f"t{self._random.randrange(self._tables)}"
                manifest = self.sql(f"UPDATE {table} SET v = random()")
            else:
                manifest = self.request("append", {"table": "log", "rows": [{"id": i, "v": number} for i in range(5)]})
            self.took_ms.append((time.perf_counter() - begin) * 1000)
            self.pack_bytes.append(manifest.pack.size_bytes if manifest.pack else 0)
        return manifest

    def open(self, version: int | None) -> None:
        """Attach a version without a cache and read one of its tables."""
        chain = Chain(self.chain.store, self.settings.nats.prefix, self.name)
        with duckdb.connect(":memory:") as con:
            attached = attach_chain(con, chain, self.settings, version=version, alias="m")
            con.execute("SELECT sum(v) FROM m.t7").fetchall()
            attached.detach()

    def pull(self, version: int) -> None:
        """Write a version as a file."""
        materialise(self.chain.store, self.chain.get(version), self._folder / f"{self.name}.duckdb")

    def packs(self, version: int) -> int:
        """Return the number of packs to which a version refers."""
        layout = self.chain.get(version).blocks
        if layout is None:
            return 0
        table = read_table(self.chain.store, layout)
        blocks = {table.pack_of(entry) for entry in table.entries}
        return len(blocks | {leaf.pack for leaf in layout.leaves} | {layout.header.pack})

    def objects(self) -> Counter[str]:
        """Return the numbers of objects by folder."""
        return Counter(info.key.split("/")[2] for info in self.chain.store.list(f"{self.chain.folder}/"))

    def clean(self, later: timedelta) -> tuple[Cleaned, float]:
        """Clean up as if some time had passed; return what was deleted and how long it took."""
        begin = time.perf_counter()
        cleaned = Cleanup(self.chain, RetentionSettings(), 30).run(datetime.now(UTC) + later)
        return cleaned, time.perf_counter() - begin


def _filling(table: str) -> str:
    return f"INSERT INTO {table} SELECT random() FROM range({TABLE_ROWS})"


def compare(name: str, work: Callable[[], None], other: Callable[[], None]) -> None:
    """Measure the same on the old and on the young model, in turn, so that other load on the machine affects both."""
    took: dict[Callable[[], None], list[float]] = {work: [], other: []}
    for _ in range(SAMPLES):
        for one, samples in took.items():
            begin = time.perf_counter()
            one()
            samples.append((time.perf_counter() - begin) * 1000)
    report(name, statistics.median(took[work]), "ms", statistics.median(took[other]), f"a model of {FEW} versions")


def measure(old: AgingModel, young: AgingModel, versions: int) -> None:
    """Measure an old model beside a young one, before and after it is cleaned up."""
    begin = time.perf_counter()
    first = old.grow(FEW).version
    newest = young.grow(FEW).version
    pin(old.chain, "oldest", first, "the oldest version that is kept")
    last = old.grow(versions - first).version
    report("versions_made_per_s", (last - 1) / (time.perf_counter() - begin), "1/s")
    openings(old, young, first, last, newest, "")
    report("packs_of_newest", old.packs(last), "packs", young.packs(newest), f"a model of {FEW} versions")
    took, sizes = np.array(old.took_ms), np.array(old.pack_bytes)
    report("version_took_median", float(np.median(took)), "ms")
    report("version_took_p99", float(np.percentile(took, 99)), "ms", float(np.median(took)), "the median")
    early = float(sizes[:30].mean())
    report("pack_mean", float(sizes.mean()), "bytes", early, "the first 30 versions, before anything is gathered")
    report("pack_largest", float(sizes.max()), "bytes")
    clean_up(old)
    openings(old, young, first, last, newest, "_after_clean_up")
    packs = old.objects()["packs"]
    for _ in range(3):
        old.grow(MORE_VERSIONS)
        _, took_s = old.clean(timedelta(days=2))
    report("next_clean_up", took_s, "s")
    report("objects_packs_later", old.objects()["packs"], "objects", packs, f"{3 * MORE_VERSIONS} versions earlier")


def openings(old: AgingModel, young: AgingModel, first: int, last: int, newest: int, when: str) -> None:
    """Measure how long it takes to open the newest and the oldest version, and to pull the newest."""
    compare(f"open_newest{when}", lambda: old.open(None), lambda: young.open(None))
    compare(f"open_oldest{when}", lambda: old.open(first), lambda: young.open(None))
    compare(f"pull_newest{when}", lambda: old.pull(last), lambda: young.pull(newest))


def clean_up(old: AgingModel) -> None:
    """Measure the first clean-up of a long history."""
    before = old.objects()
    cleaned, took_s = old.clean(timedelta(days=2))
    after = old.objects()
    report("first_clean_up", took_s, "s")
    report("versions_cleaned_up", cleaned.cleaned, "versions")
    for kind in ("packs", "outcomes", "manifests"):
        report(f"objects_{kind}", after[kind], "objects", before[kind], "before the clean-up")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--versions", type=int, default=10_000)
    parser.add_argument("--tables", type=int, default=100)
    parser.add_argument("--s3", action="store_true", help="store in a real S3 server")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="teatree-bench-") as temporary:
        folder = Path(temporary)
        servers = TestServers(folder / "servers")
        try:
            store = servers.fresh_bucket_prefix() if options.s3 else file_store(folder / "store")
            with (
                AgingModel(store, folder / "old", "old", options.tables) as old,
                AgingModel(store, folder / "young", "young", options.tables) as young,
            ):
                measure(old, young, options.versions)
        finally:
            servers.stop()


if __name__ == "__main__":
    main()
