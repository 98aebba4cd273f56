"""Archives are read by DuckDB, Polars and PyArrow without conversion: every type and value, and the index of files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import duckdb
import orjson
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from published import PublishedModel
from teatree.contracts.formats.manifest import Manifest
from teatree.contracts.probe import NO_PROBE
from teatree.contracts.settings import LimitSettings, StoreSettings
from teatree.engine.local.reads import LocalReads
from teatree.engine.publish.archive import write_archive
from teatree.storage.archives import Archived, index_key
from teatree.storage.versions.packs import checksum
from teatree.storage.versions.reader import materialise

VALUES = {
    "BOOLEAN": ["true", "false"],
    "TINYINT": ["-128"],
    "SMALLINT": ["-32768"],
    "INTEGER": ["-2147483648"],
    "BIGINT": ["-9223372036854775808", "9007199254740993"],
    "UTINYINT": ["255"],
    "USMALLINT": ["65535"],
    "UINTEGER": ["4294967295"],
    "UBIGINT": ["18446744073709551615"],
    "HUGEINT": ["170141183460469231731687303715884105727"],
    "FLOAT": ["0.1", "'nan'"],
    "DOUBLE": ["0.1", "'-infinity'"],
    "DECIMAL(4,1)": ["-999.9"],
    "DECIMAL(18,3)": ["123456789012345.678"],
    "DECIMAL(38,10)": ["'1234567890123456789012345678.0123456789'"],
    "VARCHAR": ["'ä 木'", "''"],
    "BLOB": ["'\\xAA\\x00'"],
    "DATE": ["'2020-01-01'", "'0044-03-15 (BC)'"],
    "TIME": ["'23:59:59.999999'"],
    "TIMESTAMP_S": ["'2020-01-01 00:00:01'"],
    "TIMESTAMP_MS": ["'2020-01-01 00:00:01.123'"],
    "TIMESTAMP": ["'2020-01-01 00:00:01.123456'", "'0044-03-15 (BC) 10:00:00'"],
    "TIMESTAMP_NS": ["'2020-01-01 00:00:01.123456789'"],
    "TIMESTAMPTZ": ["'2020-01-01 00:00:01.123456+01'"],
    "INTERVAL": ["'1 month -2 days 3.000001 seconds'"],
    "UUID": ["'00112233-4455-6677-8899-aabbccddeeff'"],
    "JSON": ["'{\"a\": 1.10}'"],
    "ENUM('b', 'it''s')": ["'it''s'"],
    "BIGINT[]": ["[1, NULL]", "[]"],
    "INTEGER[2]": ["[1, 2]"],
    "STRUCT(i INTEGER, t VARCHAR[])": ["{'i': 5, 't': ['x', NULL]}"],
    "MAP(VARCHAR, DOUBLE)": ["MAP {'a': 0.1}"],
}

ENGINES: dict[str, Callable[[Path], pa.Table]] = {
    "duckdb": lambda path: duckdb.connect().sql(f"FROM '{path}'").to_arrow_table(),
    "polars": lambda path: pl.read_parquet(path).to_arrow(),
    "polars-lazy": lambda path: pl.scan_parquet(path).collect().to_arrow(),
    "pyarrow": pq.read_table,
}


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_reads_every_type(file_store: StoreSettings, tmp_path: Path, engine: str) -> None:
    """A file of an archive, read by another engine without conversion, holds the table's values."""
    columns = {f"c{number}": kind for number, kind in enumerate(VALUES)}
    with PublishedModel(file_store, tmp_path) as model:
        model.create({"t": columns})
        for row in range(3):
            cells = [values[row] if row < len(values) else "NULL" for values in VALUES.values()]
            manifest = model.sql(f"INSERT INTO t VALUES ({', '.join(cells)})")
        archived = archive(model, manifest, tmp_path)
        found = ENGINES[engine](tmp_path / "store" / model.chain.key(archived.files["t"].key))
        file = tmp_path / "version.duckdb"
        materialise(model.chain.store, manifest, file)
        with duckdb.connect(str(file), read_only=True) as con:
            con.execute("SET TimeZone = 'UTC'")
            con.register("found", found)
            for name, kind in columns.items():
                expected = con.execute(f"SELECT {name}::VARCHAR FROM t").fetchall()
                assert con.execute(f"SELECT CAST({name} AS {kind})::VARCHAR FROM found").fetchall() == expected, kind


def test_the_index_has_all_that_a_reader_needs(file_store: StoreSettings, tmp_path: Path) -> None:
    """Each archive has a JSON index: for every table its file, rows, bytes, checksum, columns and key."""
    with PublishedModel(file_store, tmp_path) as model:
        model.create({"sales": {"id": "INTEGER", "amount": "DECIMAL(18,2)"}, "sites": {"name": "VARCHAR"}})
        first = archive(model, model.sql("INSERT INTO sales VALUES (1, 2.5), (2, 3)"), tmp_path)
        manifest = model.sql("INSERT INTO sites VALUES ('a')")
        second = archive(model, manifest, tmp_path, first)
        index = orjson.loads(model.chain.store.get(model.chain.key(index_key(manifest.version))))
        assert (index["model"], index["version"], index["written"]) == ("sales", manifest.version, ["sites"])
        assert index["tables"]["sales"]["key"] == first.files["sales"].key
        assert index["tables"]["sales"]["columns"][1] == {"name": "amount", "type": "DECIMAL(18,2)", "nullable": True}
        for name, rows in (("sales", 2), ("sites", 1)):
            body = model.chain.store.get(model.chain.key(index["tables"][name]["key"]))
            assert checksum(body) == index["tables"][name]["checksum"] == second.files[name].checksum
            assert len(body) == index["tables"][name]["bytes"]
            assert pq.read_table(pa.BufferReader(body)).num_rows == index["tables"][name]["rows"] == rows


def archive(model: PublishedModel, manifest: Manifest, folder: Path, before: Archived | None = None) -> Archived:
    """Archive a version as a manager does."""
    path = folder / f"{manifest.version}.duckdb"
    reads = LocalReads(LimitSettings(), folder / "archive_staging")

    def restore() -> Path:
        materialise(model.chain.store, manifest, path)
        return path

    with reads.source(manifest.version, restore) as source:
        return write_archive(model.chain, manifest, source, before, (), NO_PROBE)
