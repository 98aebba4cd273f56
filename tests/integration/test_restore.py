"""`restore`: a new version whose user tables equal an earlier one's."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import duckdb
import pytest

from published import LIMITS, PublishedModel
from servers import S3_IS_SLOW, TestServers
from teatree.contracts.errors import Code
from teatree.contracts.formats.manifest import Manifest
from teatree.contracts.formats.notices import Status
from teatree.contracts.settings import StoreSettings
from teatree.engine.duckdb.commit_table import read_commits
from teatree.engine.duckdb.database import Database
from teatree.storage.versions.reader import materialise

VALUES = {
    "BOOLEAN": ("true", "false"),
    "TINYINT": ("-128", "127"),
    "UTINYINT": ("0", "255"),
    "SMALLINT": ("-32768",),
    "USMALLINT": ("65535",),
    "INTEGER": ("-2147483648",),
    "UINTEGER": ("4294967295",),
    "BIGINT": ("-9223372036854775808",),
    "UBIGINT": ("18446744073709551615",),
    "HUGEINT": ("'-170141183460469231731687303715884105728'", "'170141183460469231731687303715884105727'"),
    "UHUGEINT": ("'340282366920938463463374607431768211455'",),
    "FLOAT": ("'-0.0'", "'nan'", "'inf'", "'1e-45'"),
    "DOUBLE": ("'-0.0'", "'nan'", "'-inf'", "'5e-324'", "0.1"),
    "DECIMAL(38,10)": ("'9999999999999999999999999999.9999999999'",),
    "DECIMAL(4,1)": ("-999.9",),
    "VARCHAR": ("''", "'NULL'", "'ünï 🌳 ''x'''"),
    "BLOB": ("''", r"'\x00\xFF'"),
    "BIT": ("'1'", "'0001'", "'101010101'"),
    "DATE": ("'5877642-06-25 (BC)'", "'infinity'", "'2024-02-29'"),
    "TIME": ("'23:59:59.999999'", "'24:00:00'"),
    "TIME WITH TIME ZONE": ("'12:00:00+15:59:59'", "'12:00:00-01'"),
    "TIMESTAMP": ("'-infinity'", "'1969-12-31 23:59:59.999999'"),
    "TIMESTAMP_S": ("'1969-12-31 23:59:59'",),
    "TIMESTAMP_MS": ("'1969-12-31 23:59:59.999'",),
    "TIMESTAMP_NS": ("'1969-12-31 23:59:59.999999999'",),
    "TIMESTAMP WITH TIME ZONE": ("'2024-03-31 02:30:00+02'", "'infinity'"),
    "INTERVAL": ("'1 month'", "'30 days'", "'-1 month 5 days -00:00:00.000001'"),
    "UUID": ("'00000000-0000-0000-0000-000000000000'", "'ffffffff-ffff-ffff-ffff-ffffffffffff'"),
    "JSON": ("""'{"b": 1, "a": [1.10, null]}'""",),
    "ENUM('a', 'b ''c''', '')": ("'a'", "''"),
    "ENUM('x', 'y')[]": ("[]", "['y', NULL]"),
    "INTEGER[]": ("[]", "[1, NULL]"),
    "VARCHAR[2]": ("['a', NULL]",),
    "INTERVAL[][]": ("[[], NULL, ['1 day']]",),
    "STRUCT(a INTEGER, b ENUM('q')[], c STRUCT(d DOUBLE))": ("{'a': 1, 'b': ['q'], 'c': {'d': 'nan'}}",),
    "MAP(VARCHAR, DECIMAL(5,2))": ("MAP {}", "MAP {'k': 1.20, 'j': NULL}"),
}
"""Every type that a column can have, with the values at its edges."""


@pytest.fixture
def model(object_store_settings: StoreSettings, tmp_path: Path) -> Iterator[PublishedModel]:
    """Return a model that does not exist yet."""
    with PublishedModel(object_store_settings, tmp_path) as published:
        yield published


def _content(model: PublishedModel, manifest: Manifest, folder: Path) -> dict[str, Any]:
    """Return everything that a reader of a version can see of its user tables: DDL, rows in order, exact as text."""
    path = folder / f"{manifest.version}.duckdb"
    materialise(model.chain.store, manifest, path)
    with duckdb.connect(str(path), read_only=True) as con:
        con.execute("SET TimeZone = 'UTC'")
        tables = con.execute("SELECT table_name, sql FROM duckdb_tables() WHERE schema_name = 'main' ORDER BY 1")
        return {
            name: (ddl, con.execute(f'SELECT COLUMNS(*)::VARCHAR FROM "{name}"').fetchall())
            for name, ddl in tables.fetchall()
        }


@pytest.mark.slow_on_s3
def test_restore_brings_back_rows_of_every_type(model: PublishedModel, tmp_path: Path) -> None:
    """Every type with its edge values, in the same order, with the same DDL; a second restore changes nothing."""
    columns = {f"c{place}": kind for place, kind in enumerate(VALUES)}
    model.create({"all types": columns})
    for place, literals in enumerate(VALUES.values()):
        for literal in literals:
            model.sql(f'INSERT INTO "all types"(c{place}) VALUES ({literal})')
    filled = model.sql('INSERT INTO "all types" BY NAME SELECT * FROM "all types" WHERE c3 IS NOT NULL')
    before = _content(model, filled, tmp_path)
    model.request("replace", {"table": "all types", "rows": []})
    emptied = model.request("alter_table", {"table": "all types", "drop": "c1"})
    restored = model.request("restore", {"version": filled.version})
    assert _content(model, restored, tmp_path) == before
    assert [t.schema for t in restored.tables] == [t.schema for t in filled.tables]
    again = model.request("restore", {"version": emptied.version})
    assert _content(model, again, tmp_path) == _content(model, emptied, tmp_path)


def test_restore_brings_back_tables_keys_and_defaults(model: PublishedModel, tmp_path: Path) -> None:
    """Dropped tables come back, new ones go, and keys, defaults and NOT NULL hold again."""
    model.create({})
    columns = [
        {"name": "id", "type": "BIGINT"},
        {"name": "at", "type": "TIMESTAMP WITH TIME ZONE", "default": "2024-01-01T00:00:00Z"},
        {"name": "amount", "type": "DECIMAL(18,2)", "nullable": False, "default": "1.50"},
    ]
    model.request("create_table", {"table": "Goals", "columns": columns, "primary_key": ["id"]})
    model.request("create_table", {"table": "kept", "columns": [{"name": "x", "type": "INTEGER"}]})
    old = model.request("append", {"table": "Goals", "rows": [{"id": 1}, {"id": 2, "amount": 3}]})
    model.request("drop_table", {"table": "goals"})
    model.request("create_table", {"table": "goals", "columns": [{"name": "id", "type": "VARCHAR"}]})
    late = model.request("create_table", {"table": "new", "columns": [{"name": "x", "type": "INTEGER"}]})
    outcome, restored = model.send("restore", {"version": old.version})
    assert outcome.result == {"version": old.version, "tables": ["Goals"], "rows": 2, "dropped": ["new"]}
    assert _content(model, restored, tmp_path) == _content(model, old, tmp_path)
    assert set(restored.changed_tables) == {"Goals", "goals", "new"}
    twice, _ = model.send("append", {"table": "Goals", "rows": [{"id": 1}]})
    assert (twice.status, twice.error and twice.error["code"]) == (Status.REJECTED, Code.CONSTRAINT)
    more = model.request("append", {"table": "Goals", "rows": [{"id": 3}]})
    assert [t.rows for t in more.tables] == [3, 0]
    again = model.request("restore", {"version": late.version})
    assert _content(model, again, tmp_path) == _content(model, late, tmp_path)


def test_restore_keeps_offset_ids_and_own_tables(model: PublishedModel, tmp_path: Path) -> None:
    """Only user tables are restored: the offset advances, used ids stay used, Teatree's own tables are kept."""
    model.create({"t": {"x": "INTEGER"}})
    old = model.request("append", {"table": "t", "rows": [{"x": 1}]})
    model.request("append", {"table": "t", "rows": [{"x": 2}]})
    restored = model.request("restore", {"version": old.version})
    assert (restored.offset, restored.last_effect_seq, restored.version) == (4, 4, old.version + 2)
    path = tmp_path / "restored.duckdb"
    materialise(model.chain.store, restored, path)
    with Database(path, LIMITS) as database:
        assert [c.offset for c in read_commits(database)][-1] == 4


def test_restore_skips_unchanged_tables(model: PublishedModel) -> None:
    """A large table that is still the same is neither read nor written."""
    model.create({"large": {"x": "BIGINT"}, "small": {"x": "BIGINT"}})
    model.sql("INSERT INTO large SELECT hash(i) // 2 FROM range(1_000_000) r(i)")
    old = model.sql("INSERT INTO small VALUES (1)")
    model.sql("DELETE FROM small")
    outcome, restored = model.send("restore", {"version": old.version})
    assert outcome.result["tables"] == ["small"]
    assert restored.pack is not None
    assert restored.pack.size_bytes < 1_000_000
    nothing, same = model.send("restore", {"version": restored.version})
    assert nothing.result == {"version": restored.version, "tables": [], "rows": 0, "dropped": []}
    assert same.changed_tables == ()


def test_restore_goes_back_beyond_a_drop_of_the_model(model: PublishedModel, tmp_path: Path) -> None:
    """Versions of an earlier incarnation can be restored into the present one."""
    model.create({"t": {"x": "INTEGER"}})
    old = model.request("append", {"table": "t", "rows": [{"x": 1}]})
    dropped = model.request("drop_model", {})
    model.create({"t": {"y": "VARCHAR"}})
    restored = model.request("restore", {"version": old.version})
    assert _content(model, restored, tmp_path) == _content(model, old, tmp_path)
    outcome, _ = model.send("restore", {"version": dropped.version})
    assert (outcome.status, outcome.error and outcome.error["code"]) == (Status.REJECTED, Code.UNKNOWN_VERSION)


@S3_IS_SLOW
@pytest.mark.parametrize(
    ("args", "code"),
    [
        ({"version": 99}, Code.UNKNOWN_VERSION),
        ({"version": 0}, Code.UNKNOWN_VERSION),
        ({"version": 1}, Code.UNKNOWN_VERSION),  # the fence, before there was a model
        ({"version": -1}, Code.OUT_OF_RANGE),
        ({"version": "2"}, Code.BAD_ARGUMENT),
        ({}, Code.MISSING_ARGUMENT),
        ({"version": 2, "tables": []}, Code.UNKNOWN_ARGUMENT),
    ],
)
def test_a_wrong_restore_is_rejected_and_changes_nothing(
    model: PublishedModel, args: dict[str, Any], code: Code
) -> None:
    """The error has its code, and later requests are applied."""
    model.create({"t": {"x": "INTEGER"}})
    outcome, after = model.send("restore", args)
    assert (outcome.status, outcome.error and outcome.error["code"]) == (Status.REJECTED, code)
    assert after.changed_tables == ()
    assert model.request("append", {"table": "t", "rows": [{"x": 1}]}).tables[0].rows == 1


def test_restoring_a_damaged_version_is_rejected(file_store: StoreSettings, tmp_path: Path) -> None:
    """Bytes that do not match their hash, or are missing, fail the request and do not stop the model."""
    with PublishedModel(file_store, tmp_path) as model:
        model.create({"t": {"x": "INTEGER"}})
        old = model.request("append", {"table": "t", "rows": [{"x": 1}]})
        now = model.sql("DELETE FROM t")
        assert old.pack is not None
        key = model.chain.key(old.pack.key)
        body = bytearray(model.chain.store.get(key))
        body[len(body) // 2] ^= 1
        model.chain.store.put(key, bytes(body))
        outcome, _ = model.send("restore", {"version": old.version})
        assert (outcome.status, outcome.error and outcome.error["code"]) == (Status.REJECTED, Code.BAD_SOURCE)
        model.chain.store.delete([key])
        outcome, after = model.send("restore", {"version": old.version})
        assert (outcome.status, outcome.error and outcome.error["code"]) == (Status.REJECTED, Code.UNKNOWN_VERSION)
        assert [t.rows for t in after.tables] == [t.rows for t in now.tables] == [0]
        assert list((tmp_path / "data").rglob("attached_snapshot*")) == []


def test_a_restore_fails_when_the_store_stays_unavailable(
    servers: TestServers, s3_server: StoreSettings, tmp_path: Path
) -> None:
    """It is retried for the set time and ends as failed; later requests are applied."""
    limits = attrs.evolve(LIMITS, load_retry_ms_max=600)
    with PublishedModel(s3_server, tmp_path, limits=limits) as model:
        model.create({"t": {"x": "INTEGER"}})
        old = model.request("append", {"table": "t", "rows": [{"x": 1}]})
        model.sql("DELETE FROM t")
        servers.seaweed().stop()
        try:
            applied = model.apply("restore", {"version": old.version})
        finally:
            servers.seaweed().start()
        outcome = applied.entries[0].outcome
        assert (outcome.status, outcome.error and outcome.error["code"]) == (Status.FAILED, Code.SOURCE_UNAVAILABLE)
        assert [t.rows for t in model.publish(applied).tables] == [0]
        assert model.request("append", {"table": "t", "rows": [{"x": 3}]}).tables[0].rows == 1


def test_a_restore_succeeds_when_the_store_is_back(file_store: StoreSettings, tmp_path: Path) -> None:
    """A restore that could not read the store at first is retried and done."""
    with PublishedModel(file_store, tmp_path) as model:
        model.create({"t": {"x": "INTEGER"}})
        old = model.request("append", {"table": "t", "rows": [{"x": 1}]})
        model.sql("DELETE FROM t")
        assert old.pack is not None
        pack = Path(file_store.url.removeprefix("file://")) / model.chain.key(old.pack.key)
        whole = pack.rename(tmp_path / "pack")
        pack.symlink_to(pack)  # ELOOP: the store cannot be read
        back = threading.Timer(0.2, whole.rename, (pack,))
        back.start()
        try:
            assert model.request("restore", {"version": old.version}).tables[0].rows == 1
        finally:
            back.join()
