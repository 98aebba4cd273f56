"""The scrub of snapshot files and spares, however busy the model is and whatever the store holds."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from attrs import evolve

from damage import flip
from event_logs import captured_events
from published import LIMITS, PublishedModel
from teatree.contracts.errors import Code, RetryError
from teatree.contracts.probe import NO_PROBE
from teatree.contracts.settings import ManagerSettings, ScrubSettings, StoreSettings
from teatree.engine.errors import DamagedVersionError
from teatree.engine.local.reads import LocalReads
from teatree.engine.local.versions import LocalVersions
from teatree.engine.publish.archive import write_archive
from teatree.storage.model_folder import model_folder
from teatree.storage.versions.reader import materialise
from teatree_manager.context import ManagerContext
from teatree_manager.followers.local_file import LocalFollower
from teatree_manager.periodic.local_scrub import LocalScrubTask

PATCHING = ManagerSettings(local_grace_ms=20, local_copy_bytes_max=0)
COPYING = ManagerSettings(local_grace_ms=20)
BLOCK_BYTES = 262_144


class _Site:
    """A model in this process, its local files, and the follower and the task that keep and check them."""

    def __init__(self, model: PublishedModel, settings: ManagerSettings, scrub: ScrubSettings) -> None:
        self.model = model
        self.folder = model_folder(model.settings.data, "sales")
        self.reads = LocalReads(LIMITS, self.folder.archive_staging)
        self.versions = LocalVersions(model.chain, self.folder, settings, NO_PROBE, self.reads.in_use)
        self.local = LocalFollower(self.versions, self.reads)
        context = ManagerContext(evolve(model.settings, scrub=scrub), model.chain, self.folder, None, NO_PROBE)
        self.scrub = LocalScrubTask(context, self.local, self.versions, self.reads)

    async def insert(self, rows: int) -> None:
        """Publish a version with more rows, and make its snapshot file as the manager's follower does."""
        sql = f"INSERT INTO sales SELECT range, hash(range + {rows}) FROM range({rows})"
        self.local.follow(await asyncio.to_thread(self.model.sql, sql))
        while self.local.current is None or self.local.current.version < self.model.chain.newest_version():
            await self.local.work()

    async def spares(self) -> list[Path]:
        """Publish until there are spares; return them."""
        while not (found := sorted(self.folder.versions.glob("*.spare"))):
            await self.insert(10)
        return found

    def close(self) -> None:
        self.reads.close()
        self.versions.close()


@contextmanager
def a_site(
    store: StoreSettings, folder: Path, settings: ManagerSettings, bytes_per_s: int = 1_000_000_000
) -> Iterator[_Site]:
    """Yield a model with one empty table."""
    with PublishedModel(store, folder) as model:
        model.create({"sales": {"id": "BIGINT", "amount": "UBIGINT"}})
        site = _Site(model, settings, ScrubSettings(interval_ms=1, bytes_per_s=bytes_per_s))
        yield site
        site.close()


async def test_a_damaged_spare_is_reported_and_never_patched(file_store: StoreSettings, tmp_path: Path) -> None:
    """A spare with a flipped bit is reported and deleted, and no later version is made of it."""
    with a_site(file_store, tmp_path, PATCHING) as site:
        await site.insert(100_000)
        spare = (await site.spares())[0]
        flip(spare, spare.stat().st_size - BLOCK_BYTES // 2)
        with captured_events() as logs:
            for _ in range(2):
                await site.scrub.work()
        assert not spare.exists()
        assert [(log["code"], log["damaged_spares"]) for log in logs] == [("corrupt", 1)]
        for _ in range(5):
            await site.insert(10)
            await site.scrub.work()
            assert site.local.current is not None
            materialise(site.model.chain.store, site.local.current, tmp_path / "fresh.duckdb")
            assert site.folder.current.read_bytes() == (tmp_path / "fresh.duckdb").read_bytes()
        assert site.scrub.damaged_spares == 1


@pytest.mark.parametrize("is_damaged", [False, True], ids=["whole", "damaged"])
async def test_a_busy_model_is_read_to_its_end(file_store: StoreSettings, tmp_path: Path, is_damaged: bool) -> None:  # noqa: FBT001
    """Damage at the end of the file is found although newer versions come between the pieces of a check."""
    with a_site(file_store, tmp_path, COPYING, bytes_per_s=40_000_000) as site:
        await site.insert(1_000_000)
        size = site.folder.current.stat().st_size
        assert size > 8_000_000
        if is_damaged:
            flip(site.folder.current.resolve(), size - BLOCK_BYTES * 3)

        async def scrub() -> None:
            for _ in range(6):
                await site.scrub.work()

        checking = asyncio.create_task(scrub())
        while not checking.done():
            await site.insert(1)
        if is_damaged:
            with pytest.raises(DamagedVersionError, match="changed on the disk"):
                await checking
        else:
            await checking


async def test_a_deleted_spare(file_store: StoreSettings, tmp_path: Path) -> None:
    """A spare that was deleted during the check is no damage, and raises nothing."""
    with a_site(file_store, tmp_path, PATCHING) as site:
        await site.insert(100_000)
        for spare in await site.spares():
            spare.unlink()
        with captured_events() as logs:
            await site.scrub.work()
        assert (logs, site.versions.spares()) == ([], [])


async def test_a_local_file_with_an_unreadable_sector(file_store: StoreSettings, tmp_path: Path) -> None:
    """When the disk cannot read the newest snapshot file, the next version's is made from the store."""
    with a_site(file_store, tmp_path, COPYING) as site:
        await site.insert(100_000)
        newest = site.folder.current.resolve()
        newest.unlink()
        newest.symlink_to("/proc/self/mem")  # reading it raises EIO
        await site.insert(10)
        assert site.local.current is not None
        materialise(site.model.chain.store, site.local.current, tmp_path / "fresh.duckdb")
        assert site.folder.current.read_bytes() == (tmp_path / "fresh.duckdb").read_bytes()


async def test_the_scrub_reads_an_unreadable_sector(
    file_store: StoreSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sector that the disk cannot read is damage of that file, whether it is the newest or a spare."""
    with a_site(file_store, tmp_path, PATCHING) as site:
        await site.insert(100_000)
        spare = (await site.spares())[0]

        def refuse(*_: int) -> bytes:
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(os, "pread", refuse)
        with pytest.raises(DamagedVersionError, match="cannot be read"):
            await site.scrub.work()
        with pytest.raises(DamagedVersionError, match="cannot be read"):
            site.versions.check_spare(site.versions.spares()[0], 0, 1)
        assert not spare.exists()


async def test_the_copy_for_an_archive_is_damaged(file_store: StoreSettings, tmp_path: Path) -> None:
    """Damage in the file that an archive is made from is not attributed to another file: it is made again."""
    with a_site(file_store, tmp_path, COPYING) as site:
        await site.insert(100_000)
        manifest = site.local.current
        assert manifest is not None
        chain = site.model.chain
        copy = tmp_path / "copy.duckdb"

        def restore(place: int) -> Path:
            materialise(chain.store, manifest, copy)
            flip(copy, place)
            return copy

        for place in range(12_288 + 1_000, site.folder.current.stat().st_size, BLOCK_BYTES):
            try:
                with site.reads.source(99, lambda place=place: restore(place)) as source:  # type: ignore[misc]
                    write_archive(chain, manifest, source, None, ["sales"], NO_PROBE)
            except RetryError as e:
                assert e.code is Code.UNAVAILABLE  # noqa: PT017
            chain.store.delete([info.key for info in chain.store.list(chain.key("archive/"))])
        with pytest.raises(RetryError), site.reads.source(99, lambda: restore(8_192)) as source:
            pytest.fail("its header is damaged")


async def test_local_files_are_checked_without_the_store(file_store: StoreSettings, tmp_path: Path) -> None:
    """With every pack deleted from the store the local files are checked as before, without an error."""
    with a_site(file_store, tmp_path, PATCHING) as site:
        await site.insert(100_000)
        await site.spares()
        store = site.model.chain.store
        store.delete([info.key for info in store.list(site.model.chain.key("packs/"))])
        with captured_events() as logs:
            await site.scrub.work()
        assert logs == []
        flip(site.folder.current.resolve(), 12_288 + 100)
        with pytest.raises(DamagedVersionError):
            await site.scrub.work()
