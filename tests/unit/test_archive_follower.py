"""An `archive` request whose version is damaged in the store is still answered, always by the same archive."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from damage import flipped
from published import LIMITS, PublishedModel
from teatree.contracts.formats.manifest import Manifest
from teatree.contracts.formats.notices import Kind, NoticeMessage
from teatree.contracts.probe import NO_PROBE
from teatree.contracts.settings import ManagerSettings, StoreSettings
from teatree.engine.local.reads import LocalReads
from teatree.engine.local.versions import LocalVersions
from teatree.engine.publish.announce import Announcer
from teatree.functions.registry import built_in_functions
from teatree.messaging.subjects import Subjects
from teatree.storage.archives import read_archive
from teatree.storage.ledger.segments import read_segment
from teatree.storage.model_folder import model_folder
from teatree_manager.context import ManagerContext
from teatree_manager.followers.archive import ArchiveFollower
from teatree_manager.followers.local_file import LocalFollower


class _Site:
    """A model in this process and a manager's archives of it."""

    def __init__(self, store: StoreSettings, folder: Path) -> None:
        self.model = PublishedModel(store, folder)
        self.chain = self.model.chain
        self.answered: list[int] = []
        self.model.create({"t": {"id": "BIGINT", "v": "UBIGINT"}})
        self.model.sql("INSERT INTO t SELECT range, hash(range) FROM range(50000)")

    def archive(self) -> Manifest:
        """Apply an `archive` request; return the version that holds it."""
        return self.model.request("archive", {})

    def follower(self) -> ArchiveFollower:
        """Return the follower of a manager that has just begun: only the store is left of an earlier one."""
        folder = model_folder(self.model.settings.data, self.model.name)
        reads = LocalReads(LIMITS, folder.archive_staging)
        versions = LocalVersions(self.chain, folder, ManagerSettings(), NO_PROBE, reads.in_use)
        local = LocalFollower(versions, reads)
        context = ManagerContext(self.model.settings, self.chain, folder, None, NO_PROBE)
        return ArchiveFollower(context, local, reads, self.model.writer, lambda _: None, self.answered.append)

    async def answer(self, barrier: Manifest) -> None:
        """Let the follower do the work that an `archive` request waits for."""
        follower = self.follower()
        follower.wait_for(barrier, ())
        await follower.work()

    def damage(self) -> dict[str, bytes]:
        """Flip the bits of every pack; return the original packs."""
        store = self.chain.store
        whole = {info.key: store.get(info.key) for info in store.list(self.chain.key("packs/"))}
        for key, body in whole.items():
            store.put(key, bytes(b ^ 0xFF for b in body))
        return whole

    def repair(self, whole: dict[str, bytes]) -> None:
        """Restore the damaged packs."""
        for key, body in whole.items():
            self.chain.store.put(key, body)

    def notices(self, barrier: Manifest) -> list[NoticeMessage]:
        """Return the messages that publish a version's outcomes."""
        announcer = Announcer(self.chain, Subjects("teatree"), LIMITS, built_in_functions(), lambda: 1_000_000)
        entries = read_segment(self.chain.store, self.chain.folder, barrier)
        return announcer.messages(barrier, entries, late=True)

    def result(self, barrier: Manifest) -> dict[str, object]:
        """Return the result that the `done` notice of an `archive` request carries."""
        ((subject, body, _),) = self.notices(barrier)
        notice = json.loads(body)
        assert notice["kind"] == Kind.DONE.value, subject
        assert notice["version"] == barrier.version
        result: dict[str, object] = notice["result"]
        return result


@pytest.fixture
def site(file_store: StoreSettings, tmp_path: Path) -> Iterator[_Site]:
    """Return a model with a table of some blocks."""
    found = _Site(file_store, tmp_path)
    with found.model:
        yield found


@pytest.fixture
def no_system_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no system folder for temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", "/nonexistent")


def rows(site: _Site, version: int) -> int:
    """Return the rows in the archive of a version."""
    archived = read_archive(site.chain, version)
    assert archived is not None
    return archived.files["t"].rows


async def test_a_whole_version_is_its_own_archive(site: _Site) -> None:
    """The result names no other version then."""
    barrier = site.archive()
    await site.answer(barrier)
    assert site.answered == [barrier.version]
    assert site.result(barrier) == {"tables": ["t"]}
    assert rows(site, barrier.version) == 50_000


async def test_a_version_damaged_in_the_store_is_archived_from_the_writers_file(site: _Site) -> None:
    """With every pack damaged the newest version is archived from the writer's file."""
    barrier = site.archive()
    site.damage()
    await site.answer(barrier)
    assert site.answered == [barrier.version]
    assert site.result(barrier) == {"tables": ["t"]}
    assert rows(site, barrier.version) == 50_000


async def test_a_later_version_answers_for_good(site: _Site) -> None:
    """A lost version is archived at the newest one, which the result names each time, also after a repair."""
    barrier = site.archive()
    newest = site.model.sql("INSERT INTO t SELECT range, 1 FROM range(10)")
    whole = site.damage()
    await site.answer(barrier)
    assert site.answered == [barrier.version]
    assert site.result(barrier) == {"tables": ["t"], "archive": newest.version}
    assert rows(site, newest.version) == 50_010
    published = site.notices(barrier)
    site.repair(whole)
    site.model.sql("INSERT INTO t SELECT range, 1 FROM range(10)")
    await site.answer(barrier)  # as the next manager does
    assert site.notices(barrier) == published
    assert read_archive(site.chain, barrier.version) is None


async def test_a_model_that_was_dropped_meanwhile(site: _Site) -> None:
    """The version that dropped the model answers the request: there is nothing to archive."""
    barrier = site.archive()
    dropped = site.model.request("drop_model", {})
    site.damage()
    await site.answer(barrier)
    assert site.result(barrier) == {"tables": ["t"], "archive": dropped.version}


async def test_a_damaged_index_is_written_anew(site: _Site) -> None:
    """An archive whose index cannot be read is made again for the request that waits for it."""
    barrier = site.archive()
    await site.answer(barrier)
    for info in await asyncio.to_thread(lambda: list(site.chain.store.list(site.chain.key("archive/")))):
        if info.key.endswith("index.json"):
            site.chain.store.put(info.key, flipped(site.chain.store.get(info.key), 0))
    site.chain.store.delete(
        [info.key for info in site.chain.store.list(site.chain.key("outcomes/")) if info.key.endswith(".archive")]
    )
    await site.answer(barrier)
    assert rows(site, barrier.version) == 50_000


@pytest.mark.usefixtures("no_system_folder")
async def test_temporary_files_lie_in_the_models_folder(site: _Site) -> None:
    """An archive of a version that has no local file leaves nothing, and uses no folder of the system."""
    await site.answer(site.archive())
    folder = model_folder(site.model.settings.data, site.model.name)
    assert [path for path in folder.temp.rglob("*") if path.is_file()] == []
    assert list(folder.temp.iterdir()) == [folder.archive_staging]


async def test_what_a_killed_manager_has_left_is_deleted(site: _Site) -> None:
    """The next manager of the model deletes temporary files: a restored version, an archive's, and DuckDB's."""
    folder = model_folder(site.model.settings.data, site.model.name)
    spill = folder.data(1, "duckdb").with_name("model.duckdb.tmp")
    for left in (folder.temp / "teatree-1" / "version.duckdb", folder.archive_staging / "1" / "t.parquet", spill / "1"):
        left.parent.mkdir(parents=True)
        left.touch()
    site.model.writer.take_over(site.chain.newest())
    assert not folder.temp.exists()
    assert not list(folder.root.rglob("model.duckdb.tmp"))
