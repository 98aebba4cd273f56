"""Local versions: ordinary read-only DuckDB files of the newest versions, behind a link that moves atomically.

A version file is made as a copy of the one before (a reflink where the file system can) in which the changed blocks are
patched, under a temporary name; then it is renamed, then the link is switched. Old files are deleted when no process
has them open, which DuckDB's own shared lock tells.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
from pathlib import Path

from teatree.contracts.failpoints import Failpoint
from teatree.contracts.manifest import Manifest
from teatree.storage.model_folder import ModelFolder
from teatree.storage.objects import ObjectStore
from teatree.storage.packs import BlockTable
from teatree.storage.versions import layout_of, materialise, patch, read_table

_FICLONE = 0x40049409
"""The Linux ioctl that makes one file share another's blocks (ioctl_ficlone(2))."""
_FLOCK = struct.Struct("hhqqi4x")


class LocalVersions:
    """The version files of one model on this host. One thread uses it."""

    def __init__(self, folder: ModelFolder, store: ObjectStore, kept: int, failpoint: Failpoint) -> None:
        self._folder = folder
        self._store = store
        self._kept = kept
        self._failpoint = failpoint
        self._known: tuple[int, BlockTable] | None = None
        self.in_use: set[int] = set()
        """Versions that this process itself has open: it must neither test their locks nor delete them."""

    def newest(self) -> int:
        """Return the number that the link names, 0 if there is none."""
        try:
            return int(self._folder.current.readlink().stem)
        except (FileNotFoundError, ValueError):
            return 0

    def publish(self, manifest: Manifest) -> Path:
        """Make a version's file, move the link to it and clean up behind; return the file."""
        path = self._folder.version(manifest.version)
        self._folder.versions.mkdir(parents=True, exist_ok=True)
        table = read_table(self._store, layout_of(manifest))
        if not path.exists():
            self._failpoint("manager.local.before_file")
            self._make(path, manifest)
        self._known = (manifest.version, table)
        if manifest.version > self.newest():
            self._failpoint("manager.local.before_link")
            self._switch(path)
        self._clean(manifest.version)
        return path

    def _make(self, path: Path, manifest: Manifest) -> None:
        base = self._known
        if base is None or not self._folder.version(base[0]).exists():
            materialise(self._store, manifest, path)
            return
        part = path.with_name(f"{path.name}.part")
        try:
            copy_file(self._folder.version(base[0]), part)
            patch(part, base[1], self._store, manifest)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def _switch(self, path: Path) -> None:
        link = self._folder.root / "current.duckdb.next"
        link.unlink(missing_ok=True)
        link.symlink_to(Path("versions") / path.name)
        link.replace(self._folder.current)

    def _clean(self, newest: int) -> None:
        numbers = sorted(int(p.stem) for p in self._folder.versions.glob("*.duckdb"))
        for number in [n for n in numbers if n < newest][: -max(self._kept - 1, 1)]:
            path = self._folder.version(number)
            if number not in self.in_use and not is_open_elsewhere(path):
                path.unlink()
        for part in self._folder.versions.glob("*.part"):
            part.unlink()

    def drop(self) -> None:
        """Take the link away from a model that was dropped; files that are open stay until they are closed."""
        self._folder.current.unlink(missing_ok=True)
        self._known = None
        if self._folder.versions.is_dir():
            for path in self._folder.versions.glob("*.duckdb"):
                if int(path.stem) not in self.in_use:
                    path.unlink()


def copy_file(source: Path, target: Path) -> None:
    """Copy a file: sharing its blocks where the file system can, else byte by byte in the kernel."""
    with source.open("rb") as old, target.open("wb") as new:
        try:
            fcntl.ioctl(new.fileno(), _FICLONE, old.fileno())
        except OSError:  # not this file system
            shutil.copyfileobj(old, new, 4_194_304)


def is_open_elsewhere(path: Path) -> bool:
    """Return whether another process holds a lock on a file, as DuckDB does while it has it open.

    Must not be asked of a file that this process has open: closing the descriptor would drop that lock.
    """
    with path.open("r+b") as file:
        query = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        answer = _FLOCK.unpack(fcntl.fcntl(file.fileno(), fcntl.F_GETLK, query))
        return int(answer[0]) != fcntl.F_UNLCK
