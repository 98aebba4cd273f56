"""Local versions: ordinary read-only DuckDB files of the newest versions, behind a link that moves atomically.

A version's file is made under a temporary name from one that holds an older version, by writing the blocks in which
they differ: from a reflink of the newest file where the file system supports it, else from a spare file that no process
has open, else from a copy. It is synced and renamed when it is complete; then the link moves.

If the newest file is damaged, all are suspect, since each was made from the one before: the next manager makes the
newest version again from the store, and the others are deleted (`ModelFolder.distrusted`). A damaged spare affects no
other file: it is read only to be patched. A file is not verified when it is patched: that would read all of it for
every version.

Old files keep their names for a while, for readers who followed the link a moment ago, and for as long as a reader has
them open (`engine.spares`).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from pathlib import Path

from teatree.contracts.clock import SYSTEM_CLOCK, Clock
from teatree.contracts.errors import Code, CorruptError, RequestError, RetryError
from teatree.contracts.formats.manifest import FileLayout, Manifest
from teatree.contracts.logs import log_event
from teatree.contracts.probe import Probe
from teatree.contracts.settings import ManagerSettings
from teatree.engine.duckdb.block_file import BLOCK_BYTES
from teatree.engine.errors import DamagedVersionError
from teatree.engine.local.damage import damaged_block, read_from_disk
from teatree.engine.local.reflinks import Reflinks, copy_file
from teatree.engine.local.spares import Spare, Spares
from teatree.storage.disk import translating_disk_full, translating_unreadable
from teatree.storage.model_folder import ModelFolder
from teatree.storage.objects.base import NotFoundError, ObjectStore
from teatree.storage.objects.spool import SpooledStore
from teatree.storage.versions.chain import Chain
from teatree.storage.versions.leaves import Leaves
from teatree.storage.versions.packs import LEAF_ENTRIES, BlockTable
from teatree.storage.versions.reader import (
    HEADER_BYTES,
    changed_blocks,
    layout_of,
    materialise,
    read_blocks,
    read_extent,
)


class LocalVersions:
    """The version files of one model on this host. One thread at a time uses it."""

    def __init__(
        self,
        chain: Chain,
        folder: ModelFolder,
        settings: ManagerSettings,
        probe: Probe,
        in_use: Callable[[], AbstractSet[int]] = frozenset,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """`in_use` returns the versions that this process has open: it neither tests their locks nor reuses them."""
        self._chain = chain
        self._folder = folder
        self._settings = settings
        self._probe = probe
        self._packs = SpooledStore(chain.store, folder.spool)
        self._reflinks = Reflinks()
        self._spares = Spares(folder, settings.versions_kept, settings.local_grace_ms, clock)
        self._known: tuple[int, BlockTable] | None = None
        """The newest file of this process and its block table."""
        self._in_use = in_use

    def newest(self) -> int:
        """Return the number that the link names, 0 if there is none."""
        try:
            return int(self._folder.current.readlink().stem)
        except (FileNotFoundError, ValueError):
            return 0

    def pause_ms(self, manifest: Manifest) -> float:
        """Return for how long to delay a version: until a spare is ready, if that is better than one more copy."""
        self.tidy()
        if self._known is None or self._folder.version(manifest.version).exists() or self._reflinks.work:
            return 0
        small = layout_of(manifest).size_bytes <= self._settings.local_copy_bytes_max
        if not small and self._spares.ready():
            return 0
        limit = self._settings.local_files_max if small else self._settings.local_spares
        return self._spares.wait_ms(limit)

    def publish(self, manifest: Manifest) -> tuple[Path, BlockTable]:
        """Make a version's file, move the link to it and clean up old files; return the file and its block table.

        Raises `disk_full`, after all unneeded files were deleted.
        """
        try:
            with translating_disk_full(f"The local file of version {manifest.version}", self._folder.versions):
                return self._publish(manifest)
        except RetryError as e:
            if e.code is Code.DISK_FULL:
                self.make_room()
            raise

    def _publish(self, manifest: Manifest) -> tuple[Path, BlockTable]:
        path = self._folder.version(manifest.version)
        self._folder.versions.mkdir(parents=True, exist_ok=True)
        is_distrusted = self._folder.distrusted.exists()
        if is_distrusted:
            materialise(self._chain.store, manifest, path)  # replaces a damaged one too
        try:
            known = self._known or self._found(manifest)
            table = self._make(self._packs, path, manifest, known)
        except CorruptError as e:  # of a local file; the version in the store is whole, or raises its own error
            log_event(
                logging.WARNING,
                "a local file is damaged; the next one is made from the store",
                model=self._chain.model,
                error=str(e),
            )
            known = None if isinstance(e, DamagedVersionError) else self._known
            table = self._make(self._chain.store, path, manifest, known)
        self._known = (manifest.version, table)
        if manifest.version > self.newest():
            with self._probe.step("manager.local.link", version=manifest.version):
                self._switch(path)
        if is_distrusted:
            self._spares.drop({*self._in_use(), manifest.version})
            self._folder.distrusted.unlink()
        self._spares.made(manifest.version, table)
        self._spares.superseded(manifest.version)
        self.tidy()
        return path, table

    def tidy(self) -> bool:
        """Turn old files whose grace period is over into spares, or delete them; return whether some remain."""
        if self._known is None:
            return False
        small = len(self._known[1]) * BLOCK_BYTES <= self._settings.local_copy_bytes_max
        return self._spares.tidy(self._in_use(), 0 if small or self._reflinks.work else self._settings.local_spares)

    def spares(self) -> list[Spare]:
        """Return the old files from which the next versions may be made."""
        return self._spares.all()

    def check_spare(self, spare: Spare, first: int, last: int) -> bool:
        """Check some blocks of a spare; return False if it is not a spare any more.

        Raises DamagedVersionError for one that is damaged on the disk, after deleting it.
        """
        if spare not in self._spares.all():
            return False
        try:
            _check_blocks(spare, first, last)
        except FileNotFoundError:  # it was deleted by hand
            self._spares.discard(spare)
            return False
        except DamagedVersionError:
            self._spares.discard(spare)
            raise
        return True

    def make_room(self) -> int:
        """Delete all unused files but the newest; return how many. The next one is made by copying the newest."""
        return self._spares.make_room({*self._in_use(), self.newest()})

    def _found(self, manifest: Manifest) -> tuple[int, BlockTable] | None:
        """Return the newest file that an earlier manager left, with its block table."""
        number = self._folder.newest_version()
        if not number or number > manifest.version:
            return None
        try:
            return number, _read_table(self._packs, layout_of(self._chain.get(number)), None)
        except (RequestError, NotFoundError):  # it was cleaned up in the store
            return None

    def _make(
        self, packs: ObjectStore, path: Path, manifest: Manifest, known: tuple[int, BlockTable] | None
    ) -> BlockTable:
        layout = layout_of(manifest)
        table = _read_table(packs, layout, known[1] if known else None)
        if path.exists():
            return table
        part = path.with_name(f"{path.name}.part")
        making = self._probe.step("manager.local.file", version=manifest.version).begin()
        try:
            before = self._begin(part, known, layout)
            if before is None:
                materialise(packs, manifest, path)
            else:
                _write_changes(packs, part, before, table, layout)
                part.replace(path)
            making.end()
        except BaseException as e:
            making.end(e)
            raise
        finally:
            part.unlink(missing_ok=True)
        return table

    def _begin(self, part: Path, known: tuple[int, BlockTable] | None, layout: FileLayout) -> BlockTable | None:
        """Put an older version's bytes under the temporary name; return their block table, None if there are none."""
        if known is None or not self._folder.version(known[0]).exists():
            return None
        newest, table = self._folder.version(known[0]), known[1]
        if self._reflinks.make(newest, part):
            return table
        if layout.size_bytes > self._settings.local_copy_bytes_max and (spare := self._spares.take(part)) is not None:
            return spare
        with translating_unreadable("A local version", newest, DamagedVersionError):
            copy_file(newest, part)
        return table

    def _switch(self, path: Path) -> None:
        link = self._folder.root / "current.duckdb.next"
        link.unlink(missing_ok=True)
        link.symlink_to(Path("versions") / path.name)
        link.replace(self._folder.current)

    def drop(self) -> None:
        """Remove the link of a model that was dropped; files that are open stay until they are closed."""
        self._folder.current.unlink(missing_ok=True)
        self._known = None
        self._spares.drop(self._in_use())

    def close(self) -> None:
        """Delete the files that were kept only for making the next version."""
        self._spares.close()


def _check_blocks(spare: Spare, first: int, last: int) -> None:
    with translating_unreadable("A local version", spare.path, DamagedVersionError), spare.path.open("rb") as file:
        body = read_from_disk(file.fileno(), HEADER_BYTES + first * BLOCK_BYTES, (last - first) * BLOCK_BYTES)
    damaged = damaged_block(body, spare.table, first, last)
    if damaged is not None:
        raise DamagedVersionError(f"Block {damaged} of an old local file changed on the disk.", where=str(spare.path))


def _read_table(store: ObjectStore, layout: FileLayout, known: BlockTable | None) -> BlockTable:
    """Return the block table of a version; leaves that `known` shares with it are not read again."""
    leaves = Leaves(store, layout)
    if known is not None:
        for number, (old, new) in enumerate(zip(known.leaves, layout.leaves, strict=False)):
            if old == new:
                leaves.learn(number, known.entries[number * LEAF_ENTRIES : (number + 1) * LEAF_ENTRIES])
    return leaves.table()


def _write_changes(store: ObjectStore, path: Path, before: BlockTable, table: BlockTable, layout: FileLayout) -> None:
    """Turn a file that holds `before` into one that holds `table`, and sync it; not atomic."""
    with path.open("r+b") as file:
        file.truncate(layout.size_bytes)
        file.write(read_extent(store, layout.header, HEADER_BYTES))
        for block, body in read_blocks(store, table, layout, changed_blocks(before.hashes, table.hashes)):
            file.seek(HEADER_BYTES + block * layout.block_bytes)
            file.write(body)
        file.flush()
        os.fsync(file.fileno())  # the next manager builds on this file, also after a power cut
