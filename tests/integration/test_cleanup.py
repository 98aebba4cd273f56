"""Cleaning up: what is kept stays whole, what was deleted is reported as such, whatever happens meanwhile."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import duckdb
import pytest

from commands import run_command
from places import calling
from published import LIMITS, PublishedModel
from servers import S3_IS_SLOW
from teatree.contracts.environment import connection_environ
from teatree.contracts.errors import Code, CorruptError, FencedError, RequestError
from teatree.contracts.formats.manifest import Manifest, ModelState, Stub
from teatree.contracts.probe import NO_PROBE
from teatree.contracts.settings import RetentionSettings, StoreSettings
from teatree.engine.apply.ledger import EarlierOutcome
from teatree.engine.duckdb import compaction
from teatree.engine.publish.archive import ArchiveSource, write_archive
from teatree.engine.publish.prepared import new_write_id
from teatree.storage.archives import read_archive
from teatree.storage.objects.base import NotFoundError
from teatree.storage.retention.cleanup import Cleaned, Cleanup
from teatree.storage.retention.deletions import read_deletions
from teatree.storage.retention.pins import list_pins, pin, unpin
from teatree.storage.versions.chain import Chain
from teatree.storage.versions.reader import materialise, read_table

NOTHING = RetentionSettings(grace_ms=0, keep_all_hours=0, hourly_days=0, daily_days=0, archive_hours=0)
"""Keeps the newest and what is pinned."""
COLUMNS = {"id": "BIGINT", "v": "BIGINT"}


@pytest.fixture
def store(object_store_settings: StoreSettings) -> StoreSettings:
    """Return an empty store of each kind in turn."""
    return object_store_settings


def clean(
    chain: Chain, policy: RetentionSettings = NOTHING, later: timedelta = timedelta(seconds=1), **options: Any
) -> Cleaned:
    """Clean a model up a little later."""
    dry_run = options.pop("dry_run", False)
    return Cleanup(chain, policy, 30, **options).run(datetime.now(UTC) + later, dry_run=dry_run)


def total(chain: Chain, version: int, folder: Path) -> int:
    """Return the sum over all tables of a version, read whole."""
    path = folder / f"{chain.model}-{version}.duckdb"
    materialise(chain.store, chain.get(version), path)
    with duckdb.connect(str(path), read_only=True) as con:
        names = [
            r[0] for r in con.execute("SELECT table_name FROM duckdb_tables() WHERE schema_name='main'").fetchall()
        ]
        found = sum(con.execute(f'SELECT coalesce(sum(v), 0) FROM "{name}"').fetchall()[0][0] for name in names)
    path.unlink()
    return int(found)


def keys(chain: Chain, folder: str) -> set[str]:
    """Return the keys below a folder of the model."""
    return {info.key for info in chain.store.list(f"{chain.folder}/{folder}/")}


def needed_packs(chain: Chain, versions: set[int]) -> set[str]:
    """Return the keys of the packs to which versions refer, found the slow way."""
    found: set[str] = set()
    for version in versions:
        layout = chain.get(version).blocks
        if layout is None:
            continue
        table = read_table(chain.store, layout)
        found |= {layout.header.pack, *(leaf.pack for leaf in layout.leaves), *map(table.pack_of, table.entries)}
    return found


def rows(first: int, count: int, v: int) -> dict[str, Any]:
    """Return the arguments of an append."""
    return {"table": "t0", "rows": [{"id": i, "v": v} for i in range(first, first + count)]}


def grow(model: PublishedModel, versions: int, first: int = 0) -> None:
    """Publish versions, each with one row more."""
    for number in range(versions):
        model.request("append", rows(first + number, 1, 1))


@pytest.mark.slow_on_s3
def test_over_a_random_history_every_kept_version_reads_as_before(store: StoreSettings, tmp_path: Path) -> None:
    """Whatever is pinned and cleaned up when: kept versions are whole, others are stubs, and no pack is left over."""
    draw = random.Random(7)
    expected: dict[int, int] = {}
    pinned: set[int] = set()
    with PublishedModel(store, tmp_path) as model:
        chain = model.chain
        model.create({f"t{i}": COLUMNS for i in range(3)})
        for step in range(30):
            table = f"t{draw.randrange(3)}"
            change = draw.choice(["append", "append", "replace", "sql"])
            if change == "sql":
                manifest = model.sql(f"UPDATE {table} SET v = v + 1 WHERE id % 3 = 0")
            else:
                made = [{"id": i, "v": draw.randrange(1_000)} for i in range(draw.choice([5, 20_000 // (1 + step)]))]
                manifest = model.request(change, {"table": table, "rows": made})
            expected[manifest.version] = total(chain, manifest.version, tmp_path)
            if draw.random() < 0.2:
                chosen = draw.choice([v for v in expected if isinstance(chain.entry(v), Manifest)])
                pin(chain, f"p{chosen}", chosen, "test")
                pinned.add(chosen)
            if pinned and draw.random() < 0.1:
                unpinned = draw.choice(sorted(pinned))
                unpin(chain, f"p{unpinned}")
                pinned.remove(unpinned)
            if draw.random() < 0.25:
                clean(chain)
        clean(chain)
        newest = chain.newest_version()
        kept = {v for v in range(1, newest + 1) if isinstance(chain.entry(v), Manifest)}
        assert kept == {newest} | pinned
        assert {v: total(chain, v, tmp_path) for v in kept} == {v: expected[v] for v in kept}
        assert keys(chain, "packs") == needed_packs(chain, kept)
        assert read_deletions(chain.store, chain.folder) == []


@S3_IS_SLOW
def test_gathered_blocks_read_as_before(store: StoreSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nearly every version gathers blocks, all versions read as they should, here and on the next host."""
    for name, value in {"PACKS_MAX": 4, "LARGE_BLOCKS": 3, "LEAF_PACKS_MAX": 2, "LEAF_PACKS_LEFT": 1}.items():
        monkeypatch.setattr(compaction, name, value)
    draw = random.Random(3)
    expected: dict[int, int] = {}
    content = {f"t{i}": 0 for i in range(12)}
    few = 0
    with PublishedModel(store, tmp_path / "a") as model:
        chain = model.chain
        model.create(dict.fromkeys(content, COLUMNS))
        for step in range(18):
            _change_one(model, draw, content)
            newest = chain.get(chain.newest_version())
            expected[newest.version] = sum(content.values())
            few += len(needed_packs(chain, {newest.version})) <= 4 + newest.blocks.block_count // 3  # type: ignore[union-attr]
            if step % 6 == 5:
                clean(chain, attrs.evolve(NOTHING, keep_all_hours=1))
    with PublishedModel(store, tmp_path / "b") as model:
        for _ in range(12):
            _change_one(model, draw, content)
            expected[chain.newest_version()] = sum(content.values())
    assert few > 13
    assert {v: total(chain, v, tmp_path) for v in expected} == expected
    clean(chain)
    newest_version = chain.newest_version()
    assert total(chain, newest_version, tmp_path) == expected[newest_version]
    assert keys(chain, "packs") == needed_packs(chain, {newest_version})


def _change_one(model: PublishedModel, draw: random.Random, content: dict[str, int]) -> None:
    table = draw.choice(sorted(content))
    made = [{"id": draw.randrange(2**60), "v": draw.randrange(2**20)} for _ in range(draw.choice([3, 25_000]))]
    model.request("replace", {"table": table, "rows": made})
    content[table] = sum(row["v"] for row in made)


def test_the_policy_thins_by_the_manifests_times(store: StoreSettings, tmp_path: Path) -> None:
    """A day later one version an hour is left, two weeks later one a day; a dry run reports the same deletions."""
    with PublishedModel(store, tmp_path) as model:
        model.create({"t0": COLUMNS})
        grow(model, 4)
        chain, policy = model.chain, RetentionSettings()
        assert clean(chain, policy).cleaned == 0
        dry = clean(chain, policy, timedelta(days=2), dry_run=True)
        assert [isinstance(chain.entry(v), Stub) for v in range(1, 7)] == [False] * 6
        done = clean(chain, policy, timedelta(days=2))
        assert (dry.cleaned, dry.objects, dry.bytes) == (done.cleaned, done.objects, done.bytes)
        assert done.cleaned in (5, 4)  # a full hour may have passed just now
        assert clean(chain, policy, timedelta(days=2)).objects == 0


def test_the_error_of_a_version_that_was_cleaned_up(store: StoreSettings, tmp_path: Path) -> None:
    """It names the version, the reason and the nearest kept versions; a number beyond the newest is just unknown."""
    with PublishedModel(store, tmp_path) as model:
        model.create({"t0": COLUMNS})
        grow(model, 6)
        chain = model.chain
        pin(chain, "early", 3, "")
        clean(chain)
        for version, nearest in ((5, "versions are 3 and 8"), (2, "version is 3")):
            with pytest.raises(RequestError) as caught:
                chain.get(version)
            assert caught.value.code is Code.UNKNOWN_VERSION
            assert f"Version {version} of sales was cleaned up; the nearest kept {nearest}." in caught.value.message
        with pytest.raises(RequestError, match="has no version 99"):
            chain.get(99)
        grow(model, 2, first=100)
        assert chain.newest_version() == 10
        assert list(chain.kept_numbers()) == [10, 9, 8, 3]


def test_a_reader_whose_objects_were_deleted(store: StoreSettings, tmp_path: Path) -> None:
    """Reading a version whose packs were deleted fails with the missing object's name, and leaves no file."""
    with PublishedModel(store, tmp_path) as model:
        model.create({"t0": COLUMNS})
        manifest = model.request("append", rows(0, 50_000, 1))
        model.sql("DELETE FROM t0")
        grow(model, 3)
        clean(model.chain)
        with pytest.raises(NotFoundError, match="cleaned up"):
            materialise(model.chain.store, manifest, tmp_path / "late.duckdb")
        assert not (tmp_path / "late.duckdb").exists()


def test_a_pin_comes_in_time_or_is_refused(store: StoreSettings, tmp_path: Path) -> None:
    """Set before the deletions are planned, a pin keeps its version; set later, it is refused and leaves nothing."""
    with PublishedModel(store, tmp_path) as model:
        model.create({"t0": COLUMNS})
        grow(model, 4)
        chain = model.chain
        refused: list[Code] = []

        def meanwhile(place: str) -> None:
            if place == "gc.plan.begin":
                pin(chain, "in-time", 3, "")
            if place == "gc.plan.end":
                with pytest.raises(RequestError) as caught:
                    pin(chain, "too-late", 4, "")
                refused.append(caught.value.code)

        clean(chain, probe=calling(meanwhile))
        assert refused == [Code.UNKNOWN_VERSION]
        assert [p.name for p in list_pins(chain)] == ["in-time"]
        assert total(chain, 3, tmp_path) == 1
        assert isinstance(chain.entry(4), Stub)
        with pytest.raises(RequestError, match="was cleaned up"):
            pin(chain, "later", 4, "")
        assert [p.name for p in list_pins(chain)] == ["in-time"]


def test_a_pin_ends(store: StoreSettings, tmp_path: Path) -> None:
    """A pin holds until its end; that of a fork cannot be removed by hand."""
    with PublishedModel(store, tmp_path) as model:
        model.create({"t0": COLUMNS})
        grow(model, 3)
        chain = model.chain
        pin(chain, "short", 2, "", datetime.now(UTC) + timedelta(hours=1))
        pin(chain, "fork-other", 3, "")
        clean(chain)
        assert isinstance(chain.entry(2), Manifest)
        clean(chain, later=timedelta(hours=2))
        assert isinstance(chain.entry(2), Stub)
        clean(chain, later=timedelta(days=3))
        assert [p.name for p in list_pins(chain)] == ["fork-other"]
        with pytest.raises(RequestError, match="fork"):
            unpin(chain, "fork-other")


def test_a_paused_writer_is_still_fenced(store: StoreSettings, tmp_path: Path) -> None:
    """A stub keeps its number: another writer that creates this version is fenced; the own version is recognized."""
    with PublishedModel(store, tmp_path) as model:
        model.create({"t0": COLUMNS})
        own = model.request("append", rows(0, 1, 1))
        grow(model, 3, first=1)
        clean(model.chain)
        with pytest.raises(FencedError):
            model.chain.create(attrs.evolve(own, write_id=new_write_id()))
        model.chain.create(own)
        assert isinstance(model.chain.entry(own.version), Stub)


def test_the_objects_of_an_unpublished_version_are_kept(store: StoreSettings, tmp_path: Path) -> None:
    """A clean-up while a version is being published deletes nothing of it; what a fenced writer left is deleted."""
    with PublishedModel(store, tmp_path) as model:
        model.create({"t0": COLUMNS})
        grow(model, 3)
        chain = model.chain
        newest = chain.newest_version()
        coming = chain.key(f"packs/{newest + 1:020d}-{'a' * 16}")
        left = [chain.key(f"{kind}/{newest:020d}-{'b' * 16}") for kind in ("packs", "outcomes")]
        left.append(chain.key(f"packs/{2:020d}-{'b' * 16}"))
        for key in (coming, *left):
            chain.store.put(key, b"x")
        applied = model.apply("append", rows(100, 1, 5))
        clean(chain)
        model.publish(applied)
        assert total(chain, newest + 1, tmp_path) == 3 + 5
        assert chain.store.head(coming) is not None
        assert [chain.store.head(key) for key in left] == [None] * 3
        clean(chain)
        assert chain.store.head(coming) is None


@S3_IS_SLOW
def test_the_next_manager_starts_from_what_is_left(store: StoreSettings, tmp_path: Path) -> None:
    """After a clean-up a model is restored on another host, and a resend of each request gets its first outcome."""
    with PublishedModel(store, tmp_path / "a") as model:
        model.create({"t0": COLUMNS})
        first, _ = model.send("append", rows(0, 1, 1))
        grow(model, 70, first=1)  # beyond the tail: the ledger has runs
        second, _ = model.send("append", rows(200, 1, 1))
        grow(model, 1, first=201)
        clean(model.chain)
    with PublishedModel(store, tmp_path / "b") as model:
        assert total(model.chain, model.chain.newest_version(), tmp_path) == 73
        for outcome in (first, second):
            found = model.writer.ledger.find([outcome.request_id])[outcome.request_id]
            assert isinstance(found, EarlierOutcome)
            assert found.entry.outcome == outcome
            assert isinstance(model.chain.entry(found.version or 0), Stub)
        grow(model, 3, first=300)
        clean(model.chain)
        assert total(model.chain, model.chain.newest_version(), tmp_path) == 76


def test_outcomes_expire(file_store: StoreSettings, tmp_path: Path) -> None:
    """After the days that ids are remembered, segments are deleted, and an id that is still in a run is not found."""
    with PublishedModel(file_store, tmp_path, limits=attrs.evolve(LIMITS, remember_days=0)) as model:
        model.create({"t0": COLUMNS})
        first, _ = model.send("append", rows(0, 1, 1))
        grow(model, 140, first=1)
        before = len(keys(model.chain, "outcomes"))
        ledger = model.chain.newest()
        Cleanup(model.chain, NOTHING, 0).run(datetime.now(UTC) + timedelta(seconds=1))
        left = keys(model.chain, "outcomes")
        assert ledger is not None
        assert len(left) < before
        assert len([k for k in left if not k.endswith(".run")]) <= len(ledger.ledger.tail) + 1
        assert model.writer.ledger.find([first.request_id]) == {}
    with PublishedModel(file_store, tmp_path / "b") as model:
        grow(model, 2, first=500)


@S3_IS_SLOW
def test_two_clean_ups_at_once(store: StoreSettings, tmp_path: Path) -> None:
    """One clean-up begins and ends within another: both finish, nothing that is kept is lost."""
    with PublishedModel(store, tmp_path) as model:
        model.create({"t0": COLUMNS})
        grow(model, 6)
        chain = model.chain
        for place in ("gc.plan.begin", "gc.plan.end", "gc.stubs", "gc.delete.begin", "gc.retained.begin"):
            grow(model, 3, first=random.randrange(10**9))
            inner: list[Cleaned] = []

            def meanwhile(name: str, place: str = place, inner: list[Cleaned] = inner) -> None:
                if name == place and not inner:
                    grow(model, 2, first=random.randrange(10**9))
                    inner.append(clean(chain))

            clean(chain, probe=calling(meanwhile))
            assert inner
            newest = chain.newest_version()
            clean(chain)
            kept = {v for v in range(1, newest + 1) if isinstance(chain.entry(v), Manifest)}
            assert kept == {newest}
            total(chain, newest, tmp_path)
            assert keys(chain, "packs") == needed_packs(chain, kept)
            assert read_deletions(chain.store, chain.folder) == []


def test_archives_are_thinned_and_stay_whole(file_store: StoreSettings, tmp_path: Path) -> None:
    """The newest archive and requested ones stay, with every file that they name, wherever it lies."""
    with PublishedModel(file_store, tmp_path) as model:
        chain = model.chain
        model.create({"t0": COLUMNS, "t1": COLUMNS})
        before = None
        for number in range(6):
            manifest = model.request("append", rows(number, 1, 1))
            path = tmp_path / f"{manifest.version}.duckdb"
            materialise(chain.store, manifest, path)
            with duckdb.connect(str(path), read_only=True) as con:
                wanted = ["t0"] if number == 3 else []
                source = ArchiveSource(con, tmp_path)
                before = write_archive(chain, manifest, source, before, wanted, NO_PROBE)
        grow(model, 2, first=50)
        requested = 6  # versions: fence 1, create_model 2, then 3 to 8
        clean(chain, attrs.evolve(NOTHING, keep_all_hours=1), timedelta(minutes=1))
        left = [v for v in range(1, 9) if read_archive(chain, v) is not None]
        assert left == [requested, 8]
        for version in left:
            archived = read_archive(chain, version)
            assert archived is not None
            assert set(archived.files) == {"t0", "t1"}
            for ref in archived.files.values():
                assert chain.store.head(chain.key(ref.key)) is not None
        clean(chain, NOTHING, timedelta(hours=2))
        assert [v for v in range(1, 9) if read_archive(chain, v) is not None] == [8]
        newest = read_archive(chain, 8)
        assert newest is not None
        assert keys(chain, "archive") == {chain.key(r.key) for r in newest.files.values()} | {
            chain.key(f"archive/{8:020d}/index.json")
        }


def test_damage_stops_a_clean_up_before_it_deletes(file_store: StoreSettings, tmp_path: Path) -> None:
    """A manifest that cannot be read ends the clean-up with an error that names it; nothing was deleted."""
    with PublishedModel(file_store, tmp_path) as model:
        model.create({"t0": COLUMNS})
        grow(model, 4)
        chain = model.chain
        damaged = chain.manifest_key(3)
        chain.store.put(damaged, chain.store.get(damaged)[:-20])
        before = keys(chain, "packs")
        with pytest.raises(CorruptError) as caught:
            clean(chain)
        assert caught.value.where == damaged
        assert keys(chain, "packs") == before


PLACES = [
    "gc.plan.begin",
    "gc.plan.end",
    "gc.stub.begin",
    "gc.stub.end",
    "gc.stubs",
    "gc.delete.begin",
    "gc.delete.end",
    "gc.retained.begin",
    "gc.retained.end",
]


@pytest.mark.parametrize(
    ("object_store_settings", "place"),
    [("file", place) for place in PLACES]
    + [pytest.param("s3", place, marks=() if place in PLACES[::4] else pytest.mark.slow) for place in PLACES],
    indirect=["object_store_settings"],
)
def test_killed_anywhere(store: StoreSettings, tmp_path: Path, place: str) -> None:
    """Killed at a failpoint: every version is whole or a stub, and the next clean-up finishes the work."""
    with PublishedModel(store, tmp_path) as model:
        model.create({"t0": COLUMNS})
        chain = model.chain
        grow(model, 3)
        pin(chain, "kept", chain.newest_version(), "")
        model.sql("UPDATE t0 SET v = v + 1")
        grow(model, 2, first=10)
        newest = chain.newest_version()
        sums = {v: total(chain, v, tmp_path) for v in (newest - 3, newest)}
        plan = tmp_path / "plan.json"
        hit = 2 if place.startswith("gc.stub.") else 1
        plan.write_text(f'{{"{place}": {{"action": "crash", "hit": {hit}, "times": 1}}}}')
        _gc_killed(model, plan)
        for version in range(1, newest + 1):
            _whole_or_stub(chain, version, tmp_path)
        assert {v: total(chain, v, tmp_path) for v in sums} == sums
        assert run_command(_environ(model), "gc", model.name).code == 0
        kept = {v for v in range(1, newest + 1) if isinstance(chain.entry(v), Manifest)}
        assert kept == set(sums)
        assert {v: total(chain, v, tmp_path) for v in sums} == sums
        assert keys(chain, "packs") == needed_packs(chain, kept)
        assert read_deletions(chain.store, chain.folder) == []


def _whole_or_stub(chain: Chain, version: int, folder: Path) -> None:
    if isinstance(chain.entry(version), Stub) or chain.get(version).state is not ModelState.ACTIVE:
        return
    total(chain, version, folder)


def _gc_killed(model: PublishedModel, plan: Path) -> None:
    """Run `teatree gc` as a process that a failpoint of this plan kills."""
    command = [sys.executable, "-m", "teatree.cli.main", "gc", model.name]
    environ = {**_environ(model), "TEATREE_FAILPOINTS": str(plan)}
    assert subprocess.run(command, env=environ, check=False, stdout=subprocess.DEVNULL).returncode == -signal.SIGKILL


def _environ(model: PublishedModel) -> dict[str, str]:
    """Return the environment of a `teatree gc` that keeps only the newest version and what is pinned."""
    settings = attrs.evolve(model.settings, postgres=type(model.settings.postgres)())
    return {
        **os.environ,
        **connection_environ(settings),
        "TEATREE_RETENTION_GRACE_MS": "0",
        "TEATREE_RETENTION_KEEP_ALL_HOURS": "0",
        "TEATREE_RETENTION_HOURLY_DAYS": "0",
        "TEATREE_RETENTION_DAILY_DAYS": "0",
    }
