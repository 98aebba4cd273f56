"""A model made for readers with an older DuckDB stays readable by it, whatever requests change the model.

The older releases come from the registry that pip is configured for; skipped where there is none.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest

from published import PublishedModel
from teatree.contracts.formats.manifest import Manifest
from teatree.contracts.settings import StoreSettings
from teatree.storage.versions.reader import materialise

INSTALL_S_MAX = 100
TYPES = {
    "HUGEINT": "-170141183460469231731687303715884105727",
    "UBIGINT": "18446744073709551615",
    "DOUBLE": "0.1",
    "DECIMAL(38,10)": "'1234567890123456789012345678.0123456789'",
    "VARCHAR": "'ä'",
    "BLOB": "'\\xAA\\x00'",
    "BIT": "'0101'",
    "DATE": "'2020-01-01'",
    "TIME_NS": "'23:59:59.999999999'",
    "TIMETZ": "'10:00:00+05:30'",
    "TIMESTAMP_NS": "'2020-01-01 00:00:01.123456789'",
    "TIMESTAMPTZ": "'2020-01-01 00:00:01+01'",
    "INTERVAL": "'1 month -2 days 3 seconds'",
    "UUID": "'00112233-4455-6677-8899-aabbccddeeff'",
    "ENUM('b', 'c')": "'c'",
    "BIGINT[]": "[1, NULL]",
    "INTEGER[2]": "[1, 2]",
    "STRUCT(i INTEGER, t VARCHAR[])": "{'i': 5, 't': ['x']}",
    "MAP(VARCHAR, DOUBLE)": "MAP {'a': 0.1}",
}
QUERIES = (
    "SELECT count(*), sum(id), sum(amount), count(DISTINCT text) FROM sales",
    "SELECT text FROM sales WHERE id = 4242",
    "SELECT COLUMNS(*)::VARCHAR FROM every",
)
SCRIPT = """
import json, sys, duckdb
with duckdb.connect(sys.argv[1], read_only=True) as con:
    print(json.dumps([[list(map(str, row)) for row in con.execute(q).fetchall()] for q in json.loads(sys.argv[2])]))
"""


@pytest.fixture(scope="session", params=["1.4", "1.5"])
def older(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Return an older release and the folder in which it is installed."""
    release: str = request.param
    folder = tmp_path_factory.mktemp(f"duckdb-{release}")
    options = ["--quiet", "--no-deps", "--only-binary", ":all:", "--retries", "1", "--timeout", "10"]
    try:
        subprocess.run(
            [sys.executable, "-m", "pip", "install", *options, "--target", str(folder), f"duckdb=={release}.*"],
            check=True,
            capture_output=True,
            timeout=INSTALL_S_MAX,
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        pytest.skip(f"DuckDB {release} cannot be installed here: no registry is reachable that has it")
    return release, folder


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("storage_version", ["v1.4.0", "v1.5.0"])
def test_an_older_duckdb_opens_a_pulled_file(
    older: tuple[str, Path], file_store: StoreSettings, tmp_path: Path, storage_version: str
) -> None:
    """Tables, keys and every type are read from a file for that release, after changes and another writer's as well."""
    release, installed = older
    if storage_version > f"v{release}.0":
        pytest.skip("the file is for newer releases only")
    with PublishedModel(file_store, tmp_path) as model:
        create(model, storage_version)
        manifest = change(model)
        assert query_with(pull(model, manifest, tmp_path), installed) == expected(tmp_path / "pulled.duckdb")
    with PublishedModel(file_store, tmp_path / "elsewhere") as model:  # restores the file from the store
        manifest = change(model)
        assert query_with(pull(model, manifest, tmp_path), installed) == expected(tmp_path / "pulled.duckdb")


def create(model: PublishedModel, storage_version: str) -> None:
    """Create the model, with a key and with every type."""
    columns = [{"name": f"c{number}", "type": kind} for number, kind in enumerate(TYPES)]
    model.request(
        "create_model",
        {
            "storage_version": storage_version,
            "tables": [
                {
                    "table": "sales",
                    "columns": [
                        {"name": "id", "type": "BIGINT"},
                        {"name": "amount", "type": "DECIMAL(18,2)"},
                        {"name": "text", "type": "VARCHAR"},
                    ],
                    "primary_key": ["id"],
                },
                {"table": "every", "columns": columns},
            ],
        },
    )
    model.sql(f"INSERT INTO every VALUES ({', '.join(TYPES.values())})")


def change(model: PublishedModel) -> Manifest:
    """Insert, update, delete and alter."""
    model.sql(
        "INSERT INTO sales SELECT i, i / 4, 'text ' || hash(i) % 1000 FROM range(200_000) r(i)"
        " WHERE i NOT IN (SELECT id FROM sales)"
    )
    model.sql("UPDATE sales SET amount = amount + 1 WHERE id % 7 = 0")
    model.sql("DELETE FROM sales WHERE id % 5 = 1")
    return model.sql("INSERT INTO every SELECT * FROM every LIMIT 1")


def pull(model: PublishedModel, manifest: Manifest, folder: Path) -> Path:
    """Return the version as an ordinary file."""
    path = folder / "pulled.duckdb"
    materialise(model.chain.store, manifest, path)
    return path


def query_with(path: Path, installed: Path) -> Any:
    """Return the results of an older release."""
    environ = {**os.environ, "PYTHONPATH": str(installed)}
    script = [sys.executable, "-c", SCRIPT, str(path), json.dumps(QUERIES)]
    found = subprocess.run(script, env=environ, check=False, capture_output=True, text=True, timeout=60)
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout)


def expected(path: Path) -> Any:
    """Return the results of the present DuckDB."""
    with duckdb.connect(str(path), read_only=True) as con:
        con.execute("SET TimeZone = 'UTC'")
        return [[list(map(str, row)) for row in con.execute(query).fetchall()] for query in QUERIES]


@pytest.mark.parametrize(
    ("storage_version", "kind"),
    [("v1.5.0", "TIMESTAMPTZ_NS"), ("v1.4.0", "STRUCT(a TIMESTAMPTZ_NS[])"), ("v1.2.0", "MAP(INTEGER, TIME_NS)")],
)
def test_a_type_that_the_older_duckdb_lacks_is_refused(
    file_store: StoreSettings, tmp_path: Path, storage_version: str, kind: str
) -> None:
    """One such column would make the whole file unreadable to it: create_table and alter_table reject it."""
    column = {"name": "x", "type": kind}
    with PublishedModel(file_store, tmp_path) as model:
        model.create({"t": {"id": "INTEGER"}}, storage_version=storage_version)
        for function, args in (
            ("create_table", {"table": "u", "columns": [column]}),
            ("alter_table", {"table": "t", "add": column}),
        ):
            outcome, manifest = model.send(function, args)
            assert outcome.error is not None
            assert outcome.error["code"] == "type_mismatch"
            assert [table.name for table in manifest.tables] == ["t"]
            assert len(manifest.tables[0].schema) == 1
    with PublishedModel(file_store, tmp_path, "newest") as model:
        model.create({"t": {"x": kind}})
