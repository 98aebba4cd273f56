"""The version files that this process has open: the newest one, and older ones while they are being read.

Direct reads are answered by separate processes (`teatree_manager.read_workers.worker`), which open the newest file too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from teatree.contracts.errors import Code, RetryError
from teatree.contracts.settings import LimitSettings
from teatree.engine.duckdb.open_version import ARCHIVE_MEMORY_FACTOR, OpenVersion
from teatree.engine.duckdb.private_memory import PRIVATE_MEMORY
from teatree.engine.errors import DamagedVersionError
from teatree.engine.local.damage import read_from_disk
from teatree.engine.publish.archive import ROW_GROUP_BYTES, ArchiveSource
from teatree.storage.disk import translating_unreadable


class LocalReads:
    """Keeps the newest version's file open, for direct reads, archives and the scrub."""

    def __init__(self, limits: LimitSettings, archive_staging: Path) -> None:
        """`archive_staging` is the only folder into which the archive's statements may copy; queries cannot."""
        self._limits = limits
        self._archive_staging = archive_staging
        self._row_group_bytes = min(ROW_GROUP_BYTES, limits.memory_bytes_max // 10)
        self._lock = threading.Lock()
        self._open: dict[int, OpenVersion] = {}
        self._newest = 0

    def in_use(self) -> set[int]:
        """Return the versions whose files this process has open."""
        with self._lock:
            return set(self._open)

    def switch(self, version: int, path: Path) -> None:
        """Read from another file from now on."""
        opened = OpenVersion(path, self._limits, archive_staging=self._archive_staging)
        with self._lock:
            self._open[version] = opened
            self._newest = version
            self._close_unused()

    def close(self) -> None:
        """Close the files that no query uses; each other one closes with its last query."""
        with self._lock:
            self._newest = 0
            self._close_unused()

    def _close_unused(self) -> None:
        for version, opened in list(self._open.items()):
            if version != self._newest and not opened.users:
                opened.close()
                del self._open[version]

    def newest_file(self) -> tuple[int, Path] | None:
        """Return the version that is read now and its file; None before the first."""
        with self._lock:
            opened = self._open.get(self._newest)
            return (self._newest, opened.path) if opened is not None else None

    def _has_file(self, version: int) -> bool:
        with self._lock:
            opened = self._open.get(version)
        return opened is not None and opened.path.exists()  # its database opens at its first use; it may be deleted

    @contextmanager
    def source(self, version: int, restore: Callable[[], Path]) -> Iterator[ArchiveSource]:
        """Yield a version from which to copy: the open one, else a separate file that `restore` makes.

        Two databases of one process cannot share a file, so a version file that reads may open is never opened here.
        Raises `unavailable` if the separate file is damaged: it is made again with the next try.
        """
        with (
            PRIVATE_MEMORY.beside(ARCHIVE_MEMORY_FACTOR * self._limits.memory_bytes_max),
            self._source(version, restore) as source,
        ):
            yield source

    @contextmanager
    def _source(self, version: int, restore: Callable[[], Path]) -> Iterator[ArchiveSource]:
        if self._has_file(version):
            with self._using(version) as opened, opened.translating_damage():
                yield ArchiveSource(opened.connection.cursor(), self._archive_staging, self._row_group_bytes)
            return
        try:
            restored = OpenVersion(restore(), self._limits, archive_staging=self._archive_staging)
            try:
                with restored.translating_damage():
                    yield ArchiveSource(restored.connection, self._archive_staging, self._row_group_bytes)
            finally:
                restored.close()
        except DamagedVersionError as e:
            raise RetryError(Code.UNAVAILABLE, f"The restored copy of version {version} is damaged: {e.message}") from e

    def read_at(self, version: int, offset: int, length: int) -> tuple[Path, bytes] | None:
        """Return a version's file and bytes of it, None if this process does not have it open any more.

        They are read through the descriptor that stays open as long as DuckDB's: closing another one would drop the
        lock that shows other processes that the file is in use.
        """
        try:
            with (
                self._using(version) as opened,
                translating_unreadable("A local version", opened.path, DamagedVersionError),
            ):
                return opened.path, read_from_disk(opened.file.fileno(), offset, length)
        except RetryError:
            return None

    @contextmanager
    def _using(self, version: int) -> Iterator[OpenVersion]:
        with self._lock:
            opened = self._open.get(version)
            if opened is None:
                raise RetryError(Code.UNAVAILABLE, "The model has no version to read yet.", hint="Try again shortly.")
            opened.users += 1
        try:
            yield opened
        finally:
            with self._lock:
                opened.users -= 1
                self._close_unused()
