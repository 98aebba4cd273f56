"""A manifest that vanishes is missed by readers, `verify` and writers: no older one is taken for the newest."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from published import PublishedModel
from teatree.client.attach import attach
from teatree.client.diff import diff_versions
from teatree.client.pull import list_versions, pull_version
from teatree.client.verify import verify
from teatree.contracts.errors import Code, CorruptError, DamageWarning, RequestError
from teatree.contracts.manifest import Stub
from teatree.contracts.settings import StoreSettings
from teatree.storage import chain as chains
from teatree.storage.folders import model_chains
from teatree.storage.head import advance_head, head_key
from teatree.storage.repair import Way, repair

ROWS = "SELECT count(*) FROM sales"


def cases(fast: dict[tuple[int, ...], str], *slow: tuple[int, ...]) -> pytest.MarkDecorator:
    """Parametrize with the versions that vanish, each in a kind of store; the rest of both kinds is slow."""
    every = [(kind, gone) for gone in (*fast, *slow) for kind in ("file", "s3")]
    return pytest.mark.parametrize(
        ("object_store_settings", "gone"),
        [pytest.param(*case, marks=() if fast.get(case[1]) == case[0] else pytest.mark.slow) for case in every],
        indirect=["object_store_settings"],
    )


@pytest.fixture
def model(object_store_settings: StoreSettings, tmp_path: Path) -> Iterator[PublishedModel]:
    """Return a model of eight versions, the newest known to its `head`."""
    with PublishedModel(object_store_settings, tmp_path) as published:
        published.create({"sales": {"id": "BIGINT"}})
        for number in range(6):
            newest = published.sql(f"INSERT INTO sales VALUES ({number})")
        advance_head(published.chain.store, published.chain.folder, newest)
        yield published


def vanish(model: PublishedModel, *versions: int) -> None:
    """Delete manifests."""
    model.chain.store.delete(model.chain.manifest_key(version) for version in versions)


def rows(path: Path) -> int:
    """Return the rows in a pulled file."""
    with duckdb.connect(str(path), read_only=True) as con:
        return con.execute(ROWS).fetchall()[0][0]  # type: ignore[no-any-return]


@cases({(8,): "file", (5, 6, 7, 8): "s3"}, (7, 8))
def test_the_newest_is_missed_by_every_reader(model: PublishedModel, tmp_path: Path, gone: tuple[int, ...]) -> None:
    """Pulling, attaching, listing, looking back in time: each names the version, `verify` too; a writer stops."""
    vanish(model, *gone)
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
    assert {f.version for f in verify(model.chain, all_versions=True).findings} >= set(gone)


@cases({(1,): "file", (3, 6): "s3", (2, 3, 4, 5, 6, 7): "file"}, (7,))
def test_one_below_is_reported_and_the_newest_is_read(
    model: PublishedModel, tmp_path: Path, gone: tuple[int, ...]
) -> None:
    """With `head` and without it: the newest is whole without them, and is what a reader gets, with a warning."""
    vanish(model, *gone)
    for has_head in (True, False):
        if not has_head:
            model.chain.store.delete([head_key(model.chain.folder)])
        with pytest.warns(DamageWarning, match=f"version {gone[0]} of sales is missing"):
            assert pull_version(model.chain, tmp_path / "a.duckdb").version == 8
        assert rows(tmp_path / "a.duckdb") == 6
        with pytest.warns(DamageWarning):
            listed = [info.version for info in list_versions(model.chain, 10)]
        assert listed == [v for v in range(8, 0, -1) if v not in gone]
        with pytest.raises(CorruptError, match="is missing from the store; version 8 is there"):
            model.chain.get(gone[0])
        assert {f.version for f in verify(model.chain).findings} >= set(gone)
        with pytest.warns(DamageWarning):
            found = [chain.newest() for chain in model_chains(model.chain.store, "teatree")]
        assert [manifest.version for manifest in found if manifest] == [8]


def test_a_number_beyond_the_newest_is_no_damage(model: PublishedModel) -> None:
    """It is a version that there is none of yet."""
    with pytest.raises(RequestError) as e:
        model.chain.get(9)
    assert e.value.code is Code.UNKNOWN_VERSION
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert model.chain.newest_version() == 8


def test_who_has_read_a_version_misses_it(model: PublishedModel, tmp_path: Path) -> None:
    """A pulled file and an attached version know its number, whatever `head` knows."""
    path = tmp_path / "pulled.duckdb"
    pull_version(model.chain, path)
    with duckdb.connect() as con, attach(con, "sales", settings=model.settings) as attached:
        vanish(model, 8)
        model.chain.store.delete([head_key(model.chain.folder)])
        with pytest.raises(CorruptError, match="version 8 of sales is missing"):
            pull_version(model.chain, path)
        with pytest.raises(CorruptError, match="version 8 of sales is missing"):
            attached.refresh()
    assert rows(path) == 6


def test_a_writer_takes_no_number_that_was_used(model: PublishedModel) -> None:
    """The one that runs goes on behind the gap; the next one stops."""
    vanish(model, 8)
    assert model.sql("INSERT INTO sales VALUES (7)").version == 9
    assert model.chain.end().missing == (8,)
    vanish(model, 9)
    with pytest.raises(CorruptError, match="version 8 of sales is missing"):
        model.chain.newest()


@cases({(1,): "file", (3, 4, 8): "s3", (1, 2, 3, 4, 5, 6, 7): "file"}, (8,), (4,))
def test_a_repaired_history_is_right(model: PublishedModel, tmp_path: Path, gone: tuple[int, ...]) -> None:
    """The newest returns byte for byte, stubs take the places of others; `verify` finds nothing, the model goes on."""
    before = model.chain.store.get(model.chain.manifest_key(8))
    vanish(model, *gone)
    done = repair(model.chain)
    assert [(one.version, one.way) for one in done] == [
        (version, Way.RETURNED if version == 8 else Way.GIVEN_UP) for version in gone
    ]
    assert model.chain.store.get(model.chain.manifest_key(8)) == before
    assert verify(model.chain, all_versions=True).findings == ()
    assert all(isinstance(model.chain.entry(v), Stub) for v in gone if v != 8)
    assert repair(model.chain) == []
    model.sql("INSERT INTO sales VALUES (9)")
    pull_version(model.chain, tmp_path / "a.duckdb")
    assert rows(tmp_path / "a.duckdb") == 7


def test_what_comes_meanwhile_is_not_missed(model: PublishedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version that came between two looks was not missing."""
    monkeypatch.setattr(chains.Chain, "_present", lambda _, numbers: {8} & set(numbers))
    assert model.chain.end().missing == ()
