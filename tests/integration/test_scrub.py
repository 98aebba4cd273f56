"""The scrub finds a flipped bit in the store, on every store, and its repair."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from damage import flipped
from processes import Installation, rows, table, until
from published import PublishedModel
from teatree.contracts.settings import ScrubSettings, StoreSettings
from teatree.storage.archives import index_key
from teatree_manager.periodic.scrub import ScrubTask

SETTINGS = ScrubSettings(interval_ms=1, bytes_per_s=1_000_000_000)


@pytest.fixture
def model(object_store_settings: StoreSettings, tmp_path: Path) -> Iterator[PublishedModel]:
    """Return a model of four versions."""
    with PublishedModel(object_store_settings, tmp_path) as published:
        published.create({"t": {"id": "BIGINT"}})
        published.sql("INSERT INTO t SELECT range FROM range(1000)")
        published.sql("INSERT INTO t SELECT range FROM range(1000)")
        yield published


async def rounds(task: ScrubTask) -> None:
    """Check each version twice, wherever the first round begins."""
    for _ in range(12):
        await task.run_once()


def findings(task: ScrubTask) -> tuple[str | None, list[int]]:
    """Return the task's error, as `health` shows it, and the damaged versions that it found."""
    return task.error, list(task.damaged)


@pytest.mark.slow_on_s3
@pytest.mark.parametrize("what", ["pack", "manifest", "segment"])
@pytest.mark.parametrize("version", [3, 4])
async def test_a_flipped_bit_and_its_repair_are_found(model: PublishedModel, what: str, version: int) -> None:
    """Damage in any object of a kept version is reported with version and place; an intact store has no finding."""
    task = ScrubTask(model.chain, SETTINGS)
    await rounds(task)
    assert findings(task) == (None, [])
    manifest = model.chain.get(version)
    assert manifest.pack is not None
    assert manifest.outcomes is not None
    key = {
        "pack": model.chain.key(manifest.pack.key),
        "manifest": model.chain.manifest_key(version),
        "segment": model.chain.key(manifest.outcomes.key),
    }[what]
    body = model.chain.store.get(key)
    model.chain.store.put(key, flipped(body, len(body) // 2))
    await rounds(task)
    error, versions = findings(task)
    assert versions == [version]
    assert error is not None
    assert error.startswith("corrupt: ")
    assert key in error
    model.chain.store.put(key, body)
    await rounds(task)
    assert findings(task) == (None, [])


async def test_a_manager_reports_damage_and_keeps_running(installation: Installation) -> None:
    """A flipped pack is in the manager's log with its code, and requests are applied as before."""
    manager = await installation.created(table("id"), TEATREE_SCRUB_INTERVAL_MS="20")
    await installation.send("append", rows(1), "a1")
    newest = installation.chain.newest()
    assert newest is not None
    assert newest.pack is not None
    key = installation.chain.key(newest.pack.key)
    body = installation.chain.store.get(key)
    installation.chain.store.put(key, flipped(body, len(body) - 1))
    await manager.until_printed(f"corrupt: The object does not match its hash. (at {key})")
    assert "the store is damaged" in manager.output()
    assert (await installation.send("append", rows(2), "a2"))["kind"] == "done"
    assert await manager.leave() == 0


@pytest.mark.parametrize("what", ["pack", "archive"])
async def test_a_manager_that_needs_a_damaged_object_keeps_running(installation: Installation, what: str) -> None:
    """A version or an archive that cannot be read in the store delays no request; it and its repair are reported."""
    manager = await installation.created(table("id"), TEATREE_SCRUB_INTERVAL_MS="3600000")
    await installation.send("append", rows(1), "a1")
    archived = await installation.send("archive", {}, "archive")
    assert await manager.leave() == 0
    newest = installation.chain.newest()
    assert newest is not None
    assert newest.pack is not None
    key = installation.chain.key(newest.pack.key if what == "pack" else index_key(archived["version"]))
    body = installation.chain.store.get(key)
    in_a_block = flipped(body, 40)  # a takeover reads the last frame
    installation.chain.store.put(key, in_a_block if what == "pack" else body[:40])
    shutil.rmtree(installation.local().versions)
    shutil.rmtree(installation.local().spool)
    manager = installation.manager(speed=5, TEATREE_SCRUB_INTERVAL_MS="3600000")
    await manager.until_printed("the store is damaged")
    assert (await installation.send("append", rows(2), "a2"))["kind"] == "done"
    if what == "pack":
        assert (await installation.send("archive", {}, "meanwhile"))["result"] == {"tables": ["t"]}
    with installation.postgres() as con:
        await until(lambda: con.execute("SELECT state FROM goal_model").fetchall() == [("damaged",)])
    installation.chain.store.put(key, body)
    await manager.until_printed("the damage in the store was repaired")
    assert await installation.ask("SELECT count(*) AS n FROM t", min_version=newest.version + 2) == [{"n": 2}]
    assert await manager.leave() == 0


async def test_an_archive_does_without_a_damaged_one(installation: Installation) -> None:
    """A damaged index of an archive prevents no later archive."""
    manager = await installation.created(table("id"), TEATREE_SCRUB_INTERVAL_MS="3600000")
    await installation.send("append", rows(1), "a1")
    first = await installation.send("archive", {}, "archive")
    key = installation.chain.key(index_key(first["version"]))
    installation.chain.store.put(key, installation.chain.store.get(key)[:40])
    await installation.send("append", rows(2), "a2")
    assert (await installation.send("archive", {}, "again"))["kind"] == "done"
    assert await manager.leave() == 0
