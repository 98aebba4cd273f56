"""Local version files: written at the cost of the change, readable at any time, deleted when no process needs them."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from attrs import evolve

import version_reader
from manual_clock import SleepingClock
from published import PublishedModel
from teatree.contracts.clock import SYSTEM_CLOCK, Clock
from teatree.contracts.formats.manifest import Manifest
from teatree.contracts.probe import NO_PROBE
from teatree.contracts.settings import ManagerSettings, StoreSettings
from teatree.engine.local.open_files import is_open_anywhere, is_open_elsewhere
from teatree.engine.local.versions import LocalVersions
from teatree.storage.model_folder import ModelFolder, model_folder
from teatree.storage.versions.chain import Chain
from teatree.storage.versions.packs import checksum
from teatree.storage.versions.reader import materialise

VERSIONS = 20
COPYING = ManagerSettings(local_grace_ms=400)
PATCHING = ManagerSettings(local_grace_ms=400, local_copy_bytes_max=0)
"""These two keep an old version for as long as a reader on a busy machine may take to open it."""
GRACE_S = 0.1
"""The time of grace where no reader is about to open a version."""
COPYING_SOON = evolve(COPYING, local_grace_ms=round(GRACE_S * 1000))
PATCHING_SOON = evolve(PATCHING, local_grace_ms=round(GRACE_S * 1000))


class _Site:
    """A model, and its local versions on this host."""

    def __init__(
        self, store: StoreSettings, tmp_path: Path, settings: ManagerSettings, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self.model = PublishedModel(store, tmp_path)
        self.folder: ModelFolder = model_folder(tmp_path / "data", "sales")
        self.settings = settings
        self.clock = clock
        self.local = self.manager()
        self.batch = 0
        self.model.create({"sales": {"batch": "BIGINT", "amount": "BIGINT"}})

    def manager(self) -> LocalVersions:
        """Return the local versions as a new manager opens them."""
        return LocalVersions(self.model.chain, self.folder, self.settings, NO_PROBE, clock=self.clock)

    def append(self, rows: int = 100) -> Manifest:
        self.batch += 1
        amounts = np.random.default_rng(self.batch).integers(-(10**9), 10**9, rows // 2)
        numbers = pa.array(np.repeat(np.arange(rows // 100) + self.batch, 100))
        self.batch += rows // 100 - 1
        table = pa.table({"batch": numbers, "amount": pa.array(np.repeat(amounts, 2) * np.tile([1, -1], rows // 2))})
        return self.model.request("append", {"table": "sales"}, table)

    def publish(self, manifest: Manifest) -> Path:
        """Publish as the manager's follower does."""
        while (pause_ms := self.local.pause_ms(manifest)) > 0:
            self.clock.sleep(pause_ms / 1000)
        return self.local.publish(manifest)[0]

    def files(self) -> list[str]:
        return sorted(p.name for p in self.folder.versions.iterdir())

    def tidy(self) -> None:
        while self.local.tidy():
            self.clock.sleep(0.05)


@pytest.mark.parametrize("settings", [COPYING, PATCHING], ids=["copying", "patching"])
def test_readers_never_fail_while_versions_are_published(
    file_store: StoreSettings, tmp_path: Path, settings: ManagerSettings
) -> None:
    """One reader opens the newest version for each query, another keeps one open: no error, no wrong sum."""
    site = _Site(file_store, tmp_path, settings)
    with site.model:
        first = site.publish(site.append(200_000))
        readers = [start_reader(site.folder, hold_s) for hold_s in (0.5, 0)]
        while not is_open_elsewhere(first):
            time.sleep(0.02)
        for number in range(VERSIONS):
            if number % 5 == 4:
                site.model.sql("DELETE FROM sales WHERE batch = (SELECT min(batch) FROM sales)")
            newest = site.append()
            site.publish(newest)
            assert all(reader.poll() is None for reader in readers), "a reader failed"
        counts = [list(map(int, reader.communicate(timeout=60)[0].split())) for reader in readers]
        assert all(queries >= versions >= 1 for queries, versions in counts)
        assert counts[1][1] > 1
        site.tidy()
        site.local.close()
        assert site.files() == [f"{v}.duckdb" for v in (newest.version - (VERSIONS % 5 == 0) - 1, newest.version)]
        fresh = tmp_path / "fresh.duckdb"
        materialise(site.model.chain.store, newest, fresh)
        assert checksum(fresh.read_bytes()) == checksum(site.folder.current.read_bytes())


def test_a_spare_is_patched_without_the_store(file_store: StoreSettings, tmp_path: Path) -> None:
    """Once a spare is ready, a version is made in the place of an old one, from packs that are still on this host."""
    site = _Site(file_store, tmp_path, PATCHING_SOON, SleepingClock())
    with site.model:
        inodes = []
        for _ in range(8):
            newest = site.append(10_000)
            packs = [info.key for info in site.model.chain.store.list(site.model.chain.key("packs/"))]
            site.model.chain.store.delete(packs)
            inodes.append(site.publish(newest).stat().st_ino)
            site.clock.sleep(1.2 * GRACE_S)
        assert len(set(inodes)) <= 5
        with duckdb.connect(str(site.folder.current), read_only=True) as con:
            assert con.execute("SELECT count(*), sum(amount) FROM sales").fetchall() == [(80_000, 0)]


def test_a_file_that_is_being_copied_is_not_patched(file_store: StoreSettings, tmp_path: Path) -> None:
    """A program that has an old file open without a lock, to copy it, still reads the version that it opened."""
    site = _Site(file_store, tmp_path, PATCHING_SOON, SleepingClock())
    with site.model:
        path = site.publish(site.append(10_000))
        whole = path.read_bytes()
        copier = subprocess.Popen(["sleep", "60"], stdin=path.open("rb"), stdout=subprocess.PIPE)
        held = Path(f"/proc/{copier.pid}/fd/0")
        for _ in range(6):
            site.publish(site.append(10_000))
            site.clock.sleep(0.8 * GRACE_S)
        assert held.read_bytes() == whole
        copier.kill()
        copier.wait()


def test_a_version_that_a_reader_has_open_keeps_its_name(file_store: StoreSettings, tmp_path: Path) -> None:
    """An old version is kept while a reader has it open, and deleted when it is closed."""
    site = _Site(file_store, tmp_path, COPYING_SOON, SleepingClock())
    with site.model:
        path = site.publish(site.append())
        reader = start_reader(site.folder, hold_s=600)
        while not is_open_elsewhere(path):
            time.sleep(0.02)
        for _ in range(4):
            site.publish(site.append())
        site.clock.sleep(1.2 * GRACE_S)
        assert site.local.tidy()
        assert path.exists()
        assert int(reader.communicate(timeout=60)[0].split()[1]) == 1
        site.tidy()
        assert len(site.files()) == 2
        assert not path.exists()


def test_the_next_manager_continues_from_the_files_that_it_finds(file_store: StoreSettings, tmp_path: Path) -> None:
    """A new manager patches the newest file on disk, and removes incomplete files of a killed one."""
    site = _Site(file_store, tmp_path, PATCHING)
    with site.model:
        site.publish(site.append(100_000))
        site.publish(site.append())
        (site.folder.versions / "3.spare").write_bytes(b"left")
        (site.folder.versions / "4.duckdb.part").write_bytes(b"left")
        site.local = site.manager()
        site.local.tidy()
        for pack in site.folder.spool.iterdir():
            pack.unlink()
        newest = site.append()
        missing_first_pack(site.model.chain)
        site.publish(newest)
        site.tidy()
        assert all(name.endswith(".duckdb") for name in site.files())
        with duckdb.connect(str(site.folder.current), read_only=True) as con:
            assert con.execute(version_reader.QUERY).fetchall()[0][:2] == (0, 0)


def test_a_damaged_pack_on_this_host_does_no_harm(file_store: StoreSettings, tmp_path: Path) -> None:
    """A spooled pack whose bytes changed is not used: the file is made from the store's."""
    site = _Site(file_store, tmp_path, COPYING)
    with site.model:
        site.publish(site.append(10_000))
        newest = site.append()
        assert newest.pack is not None
        spooled = site.folder.spool / Path(newest.pack.key).name
        body = bytearray(spooled.read_bytes())
        for at in range(20, len(body), 50):
            body[at] ^= 1
        spooled.write_bytes(body)
        site.publish(newest)
        with duckdb.connect(str(site.folder.current), read_only=True) as con:
            assert con.execute("SELECT count(*), sum(amount) FROM sales").fetchall() == [(10_100, 0)]


def test_space_is_freed_of_unneeded_files(file_store: StoreSettings, tmp_path: Path) -> None:
    """Spares and unused old versions are deleted, but neither the newest nor an open one; then publishing continues."""
    site = _Site(file_store, tmp_path, PATCHING)
    with site.model:
        held = site.publish(site.append())
        reader = start_reader(site.folder, hold_s=600)
        while not is_open_elsewhere(held):
            time.sleep(0.02)
        while not any(name.endswith(".spare") for name in site.files()):
            newest = site.publish(site.append())
            time.sleep(0.1)
        while len(site.files()) > 2:
            site.local.make_room()
            time.sleep(0.05)
        assert set(site.files()) == {held.name, newest.name}
        newest = site.publish(site.append())
        (site.folder.versions / "3.spare").write_bytes(b"left by a killed manager")
        site.local = site.manager()
        unlinked = site.folder.versions / "99.duckdb"  # its manager was killed before the link moved
        unlinked.write_bytes(newest.read_bytes())
        while len(site.files()) > 3:
            site.local.make_room()
            time.sleep(0.05)
        assert set(site.files()) == {held.name, newest.name, unlinked.name}
        assert int(reader.communicate(timeout=60)[0].split()[1]) == 1


def test_a_dropped_model_leaves_no_file(file_store: StoreSettings, tmp_path: Path) -> None:
    """The link and all files are deleted with the model."""
    site = _Site(file_store, tmp_path, PATCHING)
    with site.model:
        for _ in range(4):
            site.publish(site.append())
        site.local.drop()
        assert site.files() == []
        assert not site.folder.current.is_symlink()


def test_open_files_are_seen(tmp_path: Path) -> None:
    """A descriptor in another process is found by the kernel's lease, DuckDB's lock by both checks."""
    path = tmp_path / "file"
    path.write_bytes(b"x")
    assert not is_open_anywhere(path)
    with path.open("rb") as file:
        holder = subprocess.Popen(["sleep", "60"], stdin=file)
    assert is_open_anywhere(path)
    assert not is_open_elsewhere(path)
    holder.kill()
    holder.wait()
    assert not is_open_anywhere(path)


def start_reader(folder: ModelFolder, hold_s: float) -> subprocess.Popen[str]:
    """Start a reader process."""
    script = [sys.executable, str(Path(version_reader.__file__)), str(folder.root), str(hold_s)]
    return subprocess.Popen(script, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def missing_first_pack(chain: Chain) -> None:
    """Delete the oldest packs from the store: a version made from a local file does not need them."""
    packs = sorted(info.key for info in chain.store.list(chain.key("packs/")))
    chain.store.delete(packs[:2])
