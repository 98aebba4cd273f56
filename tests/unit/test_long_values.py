"""Values of some megabytes: their table is checkpointed, read and archived within the limits, here scaled down."""

from __future__ import annotations

import hashlib
from pathlib import Path

import attrs
import duckdb
import pyarrow as pa
import pytest

from published import LIMITS, PublishedModel
from teatree.contracts.probe import NO_PROBE
from teatree.contracts.settings import LimitSettings, StoreSettings
from teatree.engine.duckdb.open_version import OpenVersion
from teatree.engine.local.reads import LocalReads
from teatree.engine.publish.archive import write_archive
from teatree.storage.versions.reader import materialise

SCALE = 20
MEMORY_BYTES = LimitSettings().memory_bytes_max // SCALE
VALUE_BYTES = 7_000_000 // SCALE
ROWS = 98
AT_ONCE = 7


@pytest.fixture
def model(tmp_path: Path) -> PublishedModel:
    """Return a model with little memory."""
    limits = attrs.evolve(LIMITS, memory_bytes_max=MEMORY_BYTES)
    made = PublishedModel(StoreSettings(url=(tmp_path / "store").as_uri()), tmp_path, limits=limits)
    made.create({"t": {"id": "BIGINT", "v": "VARCHAR"}})
    return made


def text(number: int) -> str:
    """Return a long value, different for each number."""
    return f"{number:07d}" * (VALUE_BYTES // 7)


def test_values_of_some_megabytes(model: PublishedModel, tmp_path: Path) -> None:
    """98 values of 7 MB, appended one by one, are in versions, in results of ORDER BY and LIMIT, and in the archive."""
    with model:
        for start in range(0, ROWS, AT_ONCE):
            ids = list(range(start, start + AT_ONCE))
            manifest = model.request("append", {"table": "t"}, pa.table({"id": ids, "v": [text(i) for i in ids]}))
        limits = model.writer.limits
        path = tmp_path / "read.duckdb"
        materialise(model.chain.store, manifest, path)
        version = OpenVersion(path, limits)
        rows = version.answer("SELECT v FROM t ORDER BY id LIMIT 2", (), limits)
        assert rows["v"].to_pylist() == [text(0), text(1)]
        version.close()
        reads = LocalReads(limits, tmp_path / "archive_staging")
        reads.switch(manifest.version, path)
        with reads.source(manifest.version, lambda: path) as source:
            archived = write_archive(model.chain, manifest, source, None, (), NO_PROBE)
        reads.close()
        copy = tmp_path / "t.parquet"
        model.chain.store.download(model.chain.key(archived.files["t"].key), copy)
    wanted = [(number, hashlib.md5(text(number).encode()).hexdigest()) for number in range(ROWS)]  # noqa: S324
    with duckdb.connect() as con:
        found = con.execute(f"SELECT id, md5(v) FROM '{copy}'").fetchall()
    assert found == wanted  # in the table's order
