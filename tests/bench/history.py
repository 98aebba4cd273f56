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

from published import PublishedModel
from servers import TestServers, file_store
from teatree.client.attach import attach_chain
from teatree.contracts.manifest import Manifest
from teatree.contracts.names import new_id
from teatree.contracts.requests import CONTENT_JSON, Request
from teatree.contracts.settings import RetentionSettings, StoreSettings
from teatree.storage.chain import Chain
from teatree.storage.cleanup import Cleaned, Cleanup
from teatree.storage.pins import pin
from teatree.storage.versions import materialise, read_table

TABLE_ROWS = 16_000
"""Rows of one of the tables: about a block."""
FEW = 10
"""Versions of the young model that the old one is compared with."""
SAMPLES = 7
MORE_VERSIONS = 200


class History(PublishedModel):
    """A model that gets old."""

    def __init__(self, store: StoreSettings, folder: Path, tables: int) -> None:
        super().__init__(store, folder)
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
            made = Request("sales", "sql", self._seq, datetime.now(UTC), new_id(), body, content_type=CONTENT_JSON)
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

    def open_ms(self, version: int | None) -> float:
        """Return the time to attach a version, nothing of it cached, and to read one of its tables."""

        def work() -> None:
            with duckdb.connect(":memory:") as con:
                chain = Chain(self.chain.store, self.settings.nats.prefix, self.name)
                attached = attach_chain(con, chain, self.settings, version=version, alias="m")
                con.execute("SELECT sum(v) FROM m.t7").fetchall()
                attached.detach()

        return _median_ms(work)

    def pull_ms(self, version: int) -> float:
        """Return the time to write a version as a file."""
        path = self._folder / "pulled.duckdb"
        return _median_ms(lambda: materialise(self.chain.store, self.chain.get(version), path))

    def packs(self, version: int) -> int:
        """Return to how many packs a version refers."""
        layout = self.chain.get(version).file
        if layout is None:
            return 0
        table = read_table(self.chain.store, layout)
        blocks = {table.pack_of(entry) for entry in table.entries}
        return len(blocks | {leaf.pack for leaf in layout.leaves} | {layout.header.pack})

    def objects(self) -> Counter[str]:
        """Return how many objects there are, by folder."""
        return Counter(info.key.split("/")[2] for info in self.chain.store.list(f"{self.chain.folder}/"))

    def clean(self, later: timedelta) -> tuple[Cleaned, float]:
        """Clean up as if some time had passed; return what went and how long it took."""
        begin = time.perf_counter()
        cleaned = Cleanup(self.chain, RetentionSettings(), 30).run(datetime.now(UTC) + later)
        return cleaned, time.perf_counter() - begin


def _filling(table: str) -> str:
    return f"INSERT INTO {table} SELECT random() FROM range({TABLE_ROWS})"


def _median_ms(work: Callable[[], None]) -> float:
    took: list[float] = []
    for _ in range(SAMPLES):
        begin = time.perf_counter()
        work()
        took.append((time.perf_counter() - begin) * 1000)
    return statistics.median(took)


def measure(model: History, versions: int) -> None:
    """Measure a young model, then the same one when it is old, before and after it is cleaned up."""
    begin = time.perf_counter()
    young = model.grow(FEW).version
    young_open, young_pull = model.open_ms(None), model.pull_ms(young)
    pin(model.chain, "oldest", young, "the oldest version that is kept")
    old = model.grow(versions - young).version
    say("versions_made_per_s", (old - 1) / (time.perf_counter() - begin), "1/s")
    what = f"the newest of {young} versions"
    say("open_newest", model.open_ms(None), "ms", young_open, what)
    say("open_oldest", model.open_ms(young), "ms", young_open, what)
    say("pull_newest", model.pull_ms(old), "ms", young_pull, what)
    say("packs_of_newest", model.packs(old), "packs")
    took, sizes = np.array(model.took_ms), np.array(model.pack_bytes)
    say("version_took_median", float(np.median(took)), "ms")
    say("version_took_p99", float(np.percentile(took, 99)), "ms", float(np.median(took)), "the median")
    early = float(sizes[:30].mean())
    say("pack_mean", float(sizes.mean()), "bytes", early, "the first 30 versions, before anything is gathered")
    say("pack_largest", float(sizes.max()), "bytes")
    _clean_up(model, old, young, young_open, young_pull)


def _clean_up(model: History, old: int, young: int, young_open: float, young_pull: float) -> None:
    before = model.objects()
    cleaned, took_s = model.clean(timedelta(days=2))
    after = model.objects()
    say("first_clean_up", took_s, "s")
    say("versions_cleaned_up", cleaned.cleaned, "versions")
    for kind in ("packs", "outcomes", "manifests"):
        say(f"objects_{kind}", after[kind], "objects", before[kind], "before the clean-up")
    what = f"the newest of {young} versions"
    say("open_newest_after", model.open_ms(None), "ms", young_open, what)
    say("open_oldest_kept_after", model.open_ms(young), "ms", young_open, what)
    say("pull_newest_after", model.pull_ms(old), "ms", young_pull, what)
    packs = after["packs"]
    for _ in range(3):
        model.grow(MORE_VERSIONS)
        _, took_s = model.clean(timedelta(days=2))
    say("next_clean_up", took_s, "s")
    say("objects_packs_later", model.objects()["packs"], "objects", packs, f"{3 * MORE_VERSIONS} versions earlier")


def say(name: str, value: float, unit: str, baseline: float | None = None, what: str | None = None) -> None:
    """Print one figure."""
    line: dict[str, object] = {"name": name, "value": round(value, 3), "unit": unit}
    if baseline is not None:
        line |= {"baseline": round(baseline, 3), "baseline_is": what, "ratio": round(value / max(baseline, 1e-9), 3)}
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


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
            with History(store, folder, options.tables) as model:
                measure(model, options.versions)
        finally:
            servers.stop()


if __name__ == "__main__":
    main()
