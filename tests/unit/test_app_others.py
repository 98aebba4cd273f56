"""Versions of other models: read lazily, and what goes wrong there ends a request, never the model that reads them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from attrs import evolve
from typing_extensions import override

from teatree.contracts.errors import Code, RequestError, RetryError, TeatreeError
from teatree.contracts.formats.provenance import VersionRead
from teatree.contracts.settings import CacheSettings, LimitSettings, Settings, StoreSettings
from teatree.engine.open_file import open_file
from teatree.engine.others import other_versions
from teatree.engine.others.other_versions import OtherVersions
from teatree.storage.objects.local import LocalObjectStore

ROWS = 300_000
LIMITS = LimitSettings(load_retry_ms_max=0)


class FaultyStore(LocalObjectStore):
    """A store whose ranges cannot be read while it has an error."""

    error: TeatreeError | None = None
    reads = 0

    @override
    def get_range(self, key: str, offset: int, length: int) -> bytes:
        self.reads += 1
        if self.error is not None:
            raise self.error
        return super().get_range(key, offset, length)


@pytest.fixture
def store(tmp_path: Path) -> FaultyStore:
    """Return a store with two versions of `big` and one of `small`."""
    settings = Settings(store=StoreSettings(url=(tmp_path / "store").as_uri()))
    with open_file(tmp_path / "big.duckdb", settings=settings) as file:
        file.sql(f"CREATE TABLE t AS SELECT i, i * 1_000_003 % 1_000_033 AS x FROM range({ROWS}) r(i)")
        file.publish()
        file.sql("CREATE TABLE later AS SELECT 1 AS x")
        file.publish()
    with open_file(tmp_path / "small.duckdb", settings=settings) as file:
        file.sql("CREATE TABLE t AS SELECT 5 AS x")
        file.publish()
    return FaultyStore(tmp_path / "store")


@pytest.fixture
def others(store: FaultyStore) -> Iterator[OtherVersions]:
    """Yield what opens versions of that store."""
    opened = OtherVersions(store, "teatree", LIMITS, CacheSettings())
    yield opened
    opened.close()


def test_a_version_is_read_lazily(others: OtherVersions, store: FaultyStore) -> None:
    """Opening reads a few blocks, a query those that it needs; what is open is not looked up again."""
    newest = others.open("big", None)
    assert newest.read == VersionRead("big", 2)
    assert newest.access.tables() == ("later", "t")
    before = store.reads
    assert newest.access.dataset("SELECT max(x) AS m FROM t WHERE i = 3", ()).rows() == [
        {"m": 3 * 1_000_003 % 1_000_033}
    ]
    assert store.reads > before
    first = others.open("big", 1)
    assert first.access.tables() == ("t",)
    assert others.open("big", 1).access is first.access
    assert others.open("small", None).access.dataset("FROM t", ()).rows() == [{"x": 5}]
    assert newest.access.dataset("SELECT count(*) AS n FROM t", ()).rows() == [{"n": ROWS}]


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("SELECT * FROM nosuch", Code.UNKNOWN_TABLE),
        ("INSERT INTO t VALUES (1)", Code.SQL_NOT_ALLOWED),
        ("SELECT * FROM 'x.csv'", Code.SQL_NOT_ALLOWED),
        ("SELECT * FROM version_1.main.t", Code.SQL_NOT_ALLOWED),
        ("SELECT * FROM _teatree.commits", Code.SQL_NOT_ALLOWED),
        ("ATTACH 'x.duckdb'", Code.SQL_NOT_ALLOWED),
        ("SELECT nosuch FROM t", Code.BAD_SQL),
        ("SELECT error('x') FROM t", Code.BAD_ARGUMENT),
    ],
)
def test_the_guard_holds_there_too(others: OtherVersions, sql: str, code: Code) -> None:
    """A query may read the tables of the version that it was asked of, and no other's; the next one works."""
    others.open("small", None)
    access = others.open("big", None).access
    with pytest.raises(RequestError) as caught:
        access.dataset(sql, ())
    assert caught.value.code is code
    assert access.dataset("SELECT count(*) AS n FROM t", ()).rows() == [{"n": ROWS}]


def test_a_store_that_does_not_answer_fails_the_request(others: OtherVersions, store: FaultyStore) -> None:
    """The request fails as one whose source is unavailable; when the store answers, the same version is read."""
    access = others.open("big", None).access
    store.error = RetryError(Code.UNAVAILABLE, "The store does not answer.")
    with pytest.raises(RetryError, match="does not answer") as caught:
        access.dataset("SELECT sum(x) FROM t", ())
    assert caught.value.code is Code.SOURCE_UNAVAILABLE
    with pytest.raises(RetryError) as opening:
        others.open("small", None)
    assert opening.value.code is Code.SOURCE_UNAVAILABLE
    store.error = None
    assert access.dataset("SELECT count(*) AS n FROM t", ()).rows() == [{"n": ROWS}]
    assert others.open("small", None).access.tables() == ("t",)


def test_a_damaged_version_is_named(others: OtherVersions, store: FaultyStore, tmp_path: Path) -> None:
    """Damage of the other model is an error of the request that names the version: the model's own file has none."""
    for pack in (tmp_path / "store").rglob("packs/*"):
        body = bytearray(pack.read_bytes())
        for place in range(200, len(body), 997):
            body[place] ^= 0xFF
        pack.write_bytes(body)
    with pytest.raises(RequestError, match="Version 1 of big cannot be read") as caught:
        others.open("big", 1).access.dataset("SELECT sum(x) FROM t", ())
    assert (caught.value.code, caught.value.where) == (Code.BAD_SOURCE, "version")


def test_a_version_that_lost_its_objects_is_damaged(others: OtherVersions, store: FaultyStore, tmp_path: Path) -> None:
    """An object that is missing is an error of the request as well."""
    access = others.open("big", 1).access
    for pack in (tmp_path / "store").rglob("packs/*"):
        pack.unlink()
    with pytest.raises(RequestError) as caught:
        access.dataset("SELECT sum(x) FROM t", ())
    assert caught.value.code is Code.BAD_SOURCE
    assert "missing from the store" in caught.value.message


def test_a_manifest_that_is_damaged_or_missing_is_named(others: OtherVersions, tmp_path: Path) -> None:
    """A version whose manifest cannot be read, or vanished, is `bad_source`."""
    for manifest in (tmp_path / "store").rglob("models/*/manifests/*1"):
        manifest.write_bytes(b"{}")
    for model, version in (("big", 1), ("small", None)):
        with pytest.raises(RequestError) as caught:
            others.open(model, version)
        assert (caught.value.code, caught.value.where) == (Code.BAD_SOURCE, "version")


def test_a_query_that_takes_too_long_is_interrupted(store: FaultyStore) -> None:
    """The time of queries holds for other versions too, and the next query works."""
    others = OtherVersions(store, "teatree", evolve(LIMITS, query_time_ms_max=300), CacheSettings())
    try:
        access = others.open("small", None).access
        with pytest.raises(RetryError) as caught:
            access.dataset(
                "SELECT count(*) FROM range(100_000_000) a, range(1_000_000) b WHERE a.range % 7 = b.range", ()
            )
        assert caught.value.code is Code.TIMED_OUT
        assert access.dataset("FROM t", ()).rows() == [{"x": 5}]
    finally:
        others.close()


def test_a_large_result_or_too_little_memory_is_an_error_of_the_request(store: FaultyStore) -> None:
    """The limits of queries hold; nothing is written beside the store."""
    few = evolve(LIMITS, query_rows_max=10, memory_bytes_max=32_000_000)
    others = OtherVersions(store, "teatree", few, CacheSettings())
    try:
        access = others.open("big", None).access
        with pytest.raises(RequestError) as large:
            access.dataset("FROM t", ())
        assert large.value.code is Code.RESULT_TOO_LARGE
        with pytest.raises(RetryError) as caught:
            access.dataset("SELECT max(s) FROM (SELECT list(i || 'abcdefghijklmnop') AS s FROM t, range(20))", ())
        assert caught.value.code is Code.OVER_LIMIT
        assert access.dataset("SELECT count(*) AS n FROM t", ()).rows() == [{"n": ROWS}]
    finally:
        others.close()


def test_versions_make_place_for_others(others: OtherVersions, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few versions are attached at once; one that was detached is opened again when it is asked for."""
    monkeypatch.setattr(other_versions, "OPEN_MAX", 1)
    assert others.open("big", 1).access.tables() == ("t",)
    assert others.open("small", 1).access.tables() == ("t",)
    assert others.open("big", 1).access.dataset("SELECT count(*) AS n FROM t", ()).rows() == [{"n": ROWS}]


def test_a_database_that_was_invalidated_is_made_anew(others: OtherVersions, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure inside DuckDB is an error of one request, and the next one has another database."""
    access = others.open("small", None).access

    def fail(*_: object) -> None:
        raise duckdb.FatalException("FATAL Error: database has been invalidated because of a previous fatal error")

    with monkeypatch.context() as broken:
        broken.setattr("teatree.engine.duckdb.version_access.fetch_dataset", fail)
        with pytest.raises(RequestError) as caught:
            access.dataset("FROM t", ())
    assert caught.value.code is Code.BAD_SOURCE
    again = others.open("small", None).access
    assert again is not access
    assert again.dataset("FROM t", ()).rows() == [{"x": 5}]
