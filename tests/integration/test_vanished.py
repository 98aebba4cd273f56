"""Readers, `verify` and writers detect a missing manifest: no older one is taken for the newest."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from published import PublishedModel
from teatree.client.versions.attach import attach
from teatree.client.versions.diff import diff_versions
from teatree.client.versions.pull import list_versions, pull_version
from teatree.client.versions.verify import verify
from teatree.contracts.errors import Code, CorruptError, DamageWarning, RequestError
from teatree.contracts.formats.manifest import Stub
from teatree.contracts.settings import StoreSettings
from teatree.storage.folders import model_chains
from teatree.storage.versions import chain as chains
from teatree.storage.versions.head import advance_head, head_key
from teatree.storage.versions.repair import Way, repair

ROWS = "SELECT count(*) FROM sales"


def cases(fast: dict[tuple[int, ...], str], *slow: tuple[int, ...]) -> pytest.MarkDecorator:
    """Parametrize with the versions to delete, each in one kind of store; the other combinations are slow."""
    every = [(kind, missing) for missing in (*fast, *slow) for kind in ("file", "s3")]
    return pytest.mark.parametrize(
        ("object_store_settings", "missing"),
        [pytest.param(*case, marks=() if fast.get(case[1]) == case[0] else pytest.mark.slow) for case in every],
        indirect=["object_store_settings"],
    )


@pytest.fixture
def model(object_store_settings: StoreSettings, tmp_path: Path) -> Iterator[PublishedModel]:
    """Return a model of eight versions, whose `head` has the newest."""
    with PublishedModel(object_store_settings, tmp_path) as published:
        published.create({"sales": {"id": "BIGINT"}})
        for number in range(6):
            newest = published.sql(f"INSERT INTO sales VALUES ({number})")
        advance_head(published.chain.store, published.chain.folder, newest)
        yield published


def delete_manifests(model: PublishedModel, *versions: int) -> None:
    """Delete manifests."""
    model.chain.store.delete(model.chain.manifest_key(version) for version in versions)


def rows(path: Path) -> int:
    """Return the rows in a pulled file."""
    with duckdb.connect(str(path), read_only=True) as con:
        return con.execute(ROWS).fetchall()[0][0]  # type: ignore[no-any-return]


@cases({(8,): "file", (5, 6, 7, 8): "s3"}, (7, 8))
def test_every_reader_detects_that_the_newest_is_missing(
    model: PublishedModel, tmp_path: Path, missing: tuple[int, ...]
) -> None:
    """The errors of pulling, attaching, listing and comparing name the version, and so do `verify` and a writer."""
    delete_manifests(model, *missing)
    path = tmp_path / "pulled.duckdb"
    settings = model.settings
    with duckdb.connect() as con:
        for read in (
            lambda: pull_version(model.chain, path),
            lambda: pull_version(model.chain, path, version=8),
            lambda: pull_version(model.chain, path, at="2999-01-01"),
            lambda: attach(con, "sales", settings=settings),
            lambda: list_versions(model.chain, 10),
            lambda: diff_versions(model.chain, settings, 1, 8),
            model.chain.newest,
        ):
            with pytest.raises(CorruptError, match="version 8 of sales is missing"):
                read()
    assert not path.exists()
    assert {f.version for f in verify(model.chain, all_versions=True).findings} >= set(missing)


@cases({(1,): "file", (3, 6): "s3", (2, 3, 4, 5, 6, 7): "file"}, (7,))
def test_one_below_is_reported_and_the_newest_is_read(
    model: PublishedModel, tmp_path: Path, missing: tuple[int, ...]
) -> None:
    """With `head` and without it readers get the newest version, with a warning."""
    delete_manifests(model, *missing)
    for has_head in (True, False):
        if not has_head:
            model.chain.store.delete([head_key(model.chain.folder)])
        with pytest.warns(DamageWarning, match=f"version {missing[0]} of sales is missing"):
            assert pull_version(model.chain, tmp_path / "a.duckdb").version == 8
        assert rows(tmp_path / "a.duckdb") == 6
        with pytest.warns(DamageWarning):
            listed = [info.version for info in list_versions(model.chain, 10)]
        assert listed == [v for v in range(8, 0, -1) if v not in missing]
        with pytest.raises(CorruptError, match="is missing from the store; version 8 is there"):
            model.chain.get(missing[0])
        assert {f.version for f in verify(model.chain).findings} >= set(missing)
        with pytest.warns(DamageWarning):
            found = [chain.newest() for chain in model_chains(model.chain.store, "teatree")]
        assert [manifest.version for manifest in found if manifest] == [8]


def test_a_number_beyond_the_newest_is_no_damage(model: PublishedModel) -> None:
    """It is an unknown version."""
    with pytest.raises(RequestError) as e:
        model.chain.get(9)
    assert e.value.code is Code.UNKNOWN_VERSION
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert model.chain.newest_version() == 8


def test_a_reader_of_a_version_detects_that_it_is_missing(model: PublishedModel, tmp_path: Path) -> None:
    """A pulled file and an attached version record its number, also without `head`."""
    path = tmp_path / "pulled.duckdb"
    pull_version(model.chain, path)
    with duckdb.connect() as con, attach(con, "sales", settings=model.settings) as attached:
        delete_manifests(model, 8)
        model.chain.store.delete([head_key(model.chain.folder)])
        with pytest.raises(CorruptError, match="version 8 of sales is missing"):
            pull_version(model.chain, path)
        with pytest.raises(CorruptError, match="version 8 of sales is missing"):
            attached.refresh()
    assert rows(path) == 6


def test_a_writer_takes_no_number_that_was_used(model: PublishedModel) -> None:
    """The running writer publishes behind the gap; the next one stops."""
    delete_manifests(model, 8)
    assert model.sql("INSERT INTO sales VALUES (7)").version == 9
    assert model.chain.end().missing == (8,)
    delete_manifests(model, 9)
    with pytest.raises(CorruptError, match="version 8 of sales is missing"):
        model.chain.newest()


@cases({(1,): "file", (3, 4, 8): "s3", (1, 2, 3, 4, 5, 6, 7): "file"}, (8,), (4,))
def test_a_repaired_history_is_right(model: PublishedModel, tmp_path: Path, missing: tuple[int, ...]) -> None:
    """The newest is restored byte for byte, others become stubs; `verify` finds nothing, requests are applied."""
    before = model.chain.store.get(model.chain.manifest_key(8))
    delete_manifests(model, *missing)
    done = repair(model.chain)
    assert [(one.version, one.way) for one in done] == [
        (version, Way.RETURNED if version == 8 else Way.GIVEN_UP) for version in missing
    ]
    assert model.chain.store.get(model.chain.manifest_key(8)) == before
    assert verify(model.chain, all_versions=True).findings == ()
    assert all(isinstance(model.chain.entry(v), Stub) for v in missing if v != 8)
    assert repair(model.chain) == []
    model.sql("INSERT INTO sales VALUES (9)")
    pull_version(model.chain, tmp_path / "a.duckdb")
    assert rows(tmp_path / "a.duckdb") == 7


def test_a_version_published_meanwhile_is_not_missing(model: PublishedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version that was published between two listings was not missing."""
    monkeypatch.setattr(chains.Chain, "_present", lambda _, numbers: {8} & set(numbers))
    assert model.chain.end().missing == ()
