"""A fork: a new model that begins as a version of another one and shares its blocks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from attrs import evolve

from installed_apps import APPS
from published import LIMITS, PublishedModel
from servers import TestServers
from teatree.contracts.errors import Code
from teatree.contracts.formats.manifest import Manifest, ModelState
from teatree.contracts.formats.notices import Status
from teatree.contracts.settings import StoreSettings
from teatree.engine.duckdb.commit_table import read_commits, read_identity
from teatree.engine.duckdb.database import Database
from teatree.storage.retention.pins import list_pins
from teatree.storage.versions.reader import layout_of, materialise, read_table

ROWS = 400_000


@pytest.fixture
def origin(
    object_store_settings: StoreSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[PublishedModel]:
    """Return a model with some megabytes in it."""
    monkeypatch.syspath_prepend(APPS)
    with PublishedModel(object_store_settings, tmp_path) as model:
        model.request("create_model", {"storage_version": "v1.4.0", "app": "goals"})
        columns = [{"name": "id", "type": "BIGINT"}, {"name": "v", "type": "BIGINT"}]
        model.request("create_table", {"table": "t", "columns": columns, "primary_key": ["id"]})
        model.sql(f"INSERT INTO t SELECT i, hash(i) // 2 FROM range({ROWS}) r(i)")
        yield model


def _fork(origin: PublishedModel, folder: Path, name: str = "twin") -> PublishedModel:
    return PublishedModel(origin.settings.store, folder, name)


def _query(model: PublishedModel, manifest: Manifest, folder: Path, sql: str) -> list[tuple[Any, ...]]:
    path = folder / f"{model.name}-{manifest.version}.duckdb"
    materialise(model.chain.store, manifest, path)
    with duckdb.connect(str(path), read_only=True) as con:
        return con.execute(sql).fetchall()


SUMS = "SELECT count(*), sum(hash(id, v)) FROM t"


@pytest.mark.slow_on_s3
def test_a_fork_has_its_origins_tables_and_shares_its_blocks(origin: PublishedModel, tmp_path: Path) -> None:
    """Rows, keys and types are those of the version; the store grows by the block table and Teatree's tables only."""
    there = origin.chain.newest()
    assert there is not None
    with _fork(origin, tmp_path) as twin:
        outcome, first = twin.send("create_model", {"from": {"model": "sales"}, "limits": {"threads": 1}})
        assert outcome.error is None, outcome.error
        assert outcome.result["from"] == {"model": "sales", "version": there.version}
        assert outcome.result["tables"] == ["t"]
        assert _query(twin, first, tmp_path, SUMS) == _query(origin, there, tmp_path, SUMS)
        layout = layout_of(first)
        assert layout.bases == (twin.chain.folder, origin.chain.folder)
        assert first.pack is not None
        assert first.pack.size_bytes < layout_of(there).size_bytes / 5
        shared = (read_table(twin.chain.store, layout).entries["base"] == 1).mean()
        assert shared > 0.6
        assert [(t.name, t.schema, t.rows, t.primary_key) for t in first.tables] == [
            (t.name, t.schema, t.rows, t.primary_key) for t in there.tables
        ]


def test_a_fork_is_an_independent_model(origin: PublishedModel, tmp_path: Path) -> None:
    """It has its own version numbers, ids, options and incarnation; neither model sees later changes of the other."""
    before = origin.chain.newest()
    assert before is not None
    with _fork(origin, tmp_path) as twin:
        first = twin.request("create_model", {"from": {"model": "sales", "version": before.version}})
        assert (first.version, first.offset, first.incarnation.created_seq) == (2, 1, 1)
        assert (first.options.app, first.options.storage_version) == ("goals", "v1.4.0")
        assert first.fork_of is not None
        assert (first.fork_of.model, first.fork_of.version) == ("sales", before.version)
        assert {t.changed_in for t in first.tables} == {first.version}
        changed = twin.sql("UPDATE t SET v = 0 WHERE id < 1000")
        origin.sql("DELETE FROM t WHERE id >= 10")
        assert _query(twin, changed, tmp_path, "SELECT count(*), count(*) FILTER (v = 0) FROM t") == [(ROWS, 1000)]
        twice, _ = twin.send("sql", {"statement": "INSERT INTO t VALUES (5, 5)"})
        assert (twice.status, twice.error and twice.error["code"]) == (Status.REJECTED, Code.CONSTRAINT)
        path = tmp_path / "own.duckdb"
        materialise(twin.chain.store, changed, path)
        with Database(path, LIMITS) as database:
            assert read_identity(database).goal_model_id == twin.chain.goal_model_id
            assert [c.offset for c in read_commits(database)] == [1, 2]


def test_a_fork_survives_its_manager_and_its_disk(origin: PublishedModel, tmp_path: Path) -> None:
    """It is taken over on the same disk and on another one, from its own chain only."""
    with _fork(origin, tmp_path) as twin:
        twin.request("create_model", {"from": {"model": "sales"}})
        twin.sql("DELETE FROM t WHERE id < 10")
    with _fork(origin, tmp_path) as twin:
        twin.sql("DELETE FROM t WHERE id < 20")
    with _fork(origin, tmp_path / "elsewhere") as twin:
        last = twin.sql("DELETE FROM t WHERE id < 30")
        assert _query(twin, last, tmp_path, "SELECT count(*), min(id) FROM t") == [(ROWS - 30, 30)]
        restored = twin.request("restore", {"version": 2})
        assert _query(twin, restored, tmp_path, "SELECT count(*), min(id) FROM t") == [(ROWS, 0)]


def test_a_fork_pins_all_versions_that_hold_its_blocks(origin: PublishedModel, tmp_path: Path) -> None:
    """The origin's version is pinned, and for a fork of a fork the first origin's too."""
    there = origin.chain.newest()
    assert there is not None
    with _fork(origin, tmp_path) as twin, _fork(origin, tmp_path, "third") as third:
        twin.request("create_model", {"from": {"model": "sales"}})
        changed = twin.sql("UPDATE t SET v = 1 WHERE id = 1")
        first = third.request("create_model", {"from": {"model": "twin"}})
        assert layout_of(first).bases == (third.chain.folder, twin.chain.folder, origin.chain.folder)
        assert _query(third, first, tmp_path, SUMS) == _query(twin, changed, tmp_path, SUMS)
        assert [(p.name, p.version) for p in list_pins(twin.chain)] == [
            (f"fork-{third.chain.goal_model_id}-1", changed.version)
        ]
        assert {(p.name, p.version) for p in list_pins(origin.chain)} == {
            (f"fork-{twin.chain.goal_model_id}-1", there.version),
            (f"fork-{third.chain.goal_model_id}-1", there.version),
        }


def test_a_dropped_model_comes_back_as_a_fork_of_itself(origin: PublishedModel, tmp_path: Path) -> None:
    """The blocks are its own: nothing is written twice, and version numbers continue."""
    last = origin.sql("UPDATE t SET v = 1 WHERE id = 1")
    dropped = origin.request("drop_model", {})
    assert (dropped.state, dropped.fork_of) == (ModelState.DROPPED, None)
    newest, _ = origin.send("create_model", {"from": {"model": "sales"}})
    assert (newest.status, newest.error and newest.error["code"]) == (Status.REJECTED, Code.UNKNOWN_VERSION)
    back = origin.request("create_model", {"from": {"model": "sales", "version": last.version}})
    assert back.version == dropped.version + 2
    assert layout_of(back).bases == (origin.chain.folder,)
    assert _query(origin, back, tmp_path, SUMS) == _query(origin, last, tmp_path, SUMS)


@pytest.mark.parametrize(
    ("args", "code", "where"),
    [
        ({"from": {"model": "unknown"}}, Code.UNKNOWN_MODEL, "from.model"),
        ({"from": {"model": "unknown", "version": 3}}, Code.UNKNOWN_VERSION, "from.version"),
        ({"from": {"model": "sales", "version": 99}}, Code.UNKNOWN_VERSION, "from.version"),
        ({"from": {"model": "sales", "version": 1}}, Code.UNKNOWN_VERSION, "from.version"),
        ({"from": {"model": "sales", "version": 0}}, Code.OUT_OF_RANGE, "from.version"),
        ({"from": {"model": "sales", "version": "3"}}, Code.BAD_ARGUMENT, "from.version"),
        ({"from": {"model": "Sales"}}, Code.BAD_NAME, "model"),
        ({"from": {}}, Code.BAD_NAME, "model"),
        ({"from": {"model": "sales", "at": 1}}, Code.UNKNOWN_ARGUMENT, "from.at"),
        ({"from": "sales"}, Code.BAD_ARGUMENT, "from"),
        ({"from": {"model": "sales"}, "tables": [{"table": "x", "columns": []}]}, Code.BAD_ARGUMENT, "tables"),
        ({"from": {"model": "sales"}, "storage_version": "v1.5.0"}, Code.BAD_ARGUMENT, "storage_version"),
    ],
)
def test_a_wrong_fork_is_rejected_and_leaves_nothing(
    file_store: StoreSettings, tmp_path: Path, args: dict[str, Any], code: Code, where: str
) -> None:
    """No model, no pin, no file; the name can be used."""
    with PublishedModel(file_store, tmp_path) as origin, _fork(origin, tmp_path) as twin:
        origin.request("create_model", {"storage_version": "v1.4.0"})
        outcome, after = twin.send("create_model", args)
        assert outcome.error is not None
        assert (outcome.status, outcome.error["code"], outcome.error["where"]) == (Status.REJECTED, code, where)
        assert (after.state, after.content) == (ModelState.ABSENT, None)
        assert list_pins(origin.chain) == []
        assert list((tmp_path / "data" / "twin" / "rw").rglob("*.duckdb")) == []
        assert twin.request("create_model", {"from": {"model": "sales"}}).state is ModelState.ACTIVE


def test_a_damaged_origin_is_rejected_without_a_pin(file_store: StoreSettings, tmp_path: Path) -> None:
    """The error names the damaged object."""
    with PublishedModel(file_store, tmp_path) as origin, _fork(origin, tmp_path) as twin:
        origin.create({"t": {"x": "BIGINT"}})
        last = origin.sql("INSERT INTO t SELECT i FROM range(10000) r(i)")
        assert last.pack is not None
        key = origin.chain.key(last.pack.key)
        body = bytearray(origin.chain.store.get(key))
        body[100] ^= 1
        origin.chain.store.put(key, bytes(body))
        outcome, _ = twin.send("create_model", {"from": {"model": "sales"}})
        assert outcome.error is not None
        assert (outcome.status, outcome.error["code"]) == (Status.REJECTED, Code.BAD_SOURCE)
        assert key in outcome.error["message"]
        assert list_pins(origin.chain) == []


@pytest.mark.slow
def test_a_fork_fails_when_the_store_stays_unavailable(
    servers: TestServers, s3_server: StoreSettings, tmp_path: Path
) -> None:
    """It is retried for the set time and ends as failed; the next one succeeds."""
    with PublishedModel(s3_server, tmp_path) as origin:
        origin.create({"t": {"x": "BIGINT"}})
        with PublishedModel(s3_server, tmp_path, "twin", evolve(LIMITS, load_retry_ms_max=600)) as twin:
            servers.seaweed().stop()
            try:
                applied = twin.apply("create_model", {"from": {"model": "sales"}})
            finally:
                servers.seaweed().start()
            outcome = applied.entries[0].outcome
            assert (outcome.status, outcome.error and outcome.error["code"]) == (
                Status.FAILED,
                Code.SOURCE_UNAVAILABLE,
            )
            twin.publish(applied)
            assert twin.request("create_model", {"from": {"model": "sales"}}).state is ModelState.ACTIVE
