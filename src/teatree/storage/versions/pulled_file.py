"""A version as an ordinary DuckDB file on this disk, made from local blocks and those that have changed.

The file grows as `<name>.part`: a copy of the file that is there (sharing its blocks where the file system can), in
which the blocks that differ are replaced. When it is whole and synced it is renamed; processes that have the old file
open keep it. A part that an interrupted pull left is hashed block by block, and its correct blocks are kept.

Beside the file lies `.<name>.pulled`: which version it was, and its block table. It saves hashing the whole file, and
is used only while the file's size, inode and times are those that it had after the pull.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from attrs import define, frozen
from blake3 import blake3

from teatree.contracts.errors import Code, OperatorError, RetryError
from teatree.contracts.formats.manifest import FileLayout, Manifest
from teatree.contracts.probe import NO_PROBE, Probe
from teatree.storage.disk import FULL
from teatree.storage.objects.base import ObjectStore
from teatree.storage.versions.block_cache import BlockCache
from teatree.storage.versions.duckdb_file import check_place, check_replaceable
from teatree.storage.versions.leaves import Leaves
from teatree.storage.versions.packs import HASH_BYTES, LEAF_ENTRIES, BlockBytes, BlockTable
from teatree.storage.versions.pull_state import FileIdentity, PullState, read_state, write_state
from teatree.storage.versions.reader import HEADER_BYTES, Progress, changed_blocks, layout_of, read_blocks, read_extent

GAP_BYTES_MAX = 16_000
"""Bytes read along between two wanted blocks: fewer than a lazy reader's, as a pull moves much at once anyway."""
COPY_BYTES = 16_000_000
"""Bytes copied at once within this disk."""
_FICLONE = 0x40049409
"""The Linux ioctl that makes one file share another's blocks (ioctl_ficlone(2))."""
_NO_KERNEL_COPY = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.EXDEV, errno.EPERM})
_NO_FALLOCATE = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS})


@define
class PullStats:
    """What one pull did."""

    moved_bytes: int = 0
    """Bytes that came from the store, beside the manifest."""
    fetched_blocks: int = 0
    kept_blocks: int = 0
    """Blocks that were local already."""


def pull_file(
    store: ObjectStore,
    manifest: Manifest,
    path: Path,
    progress: Progress | None = None,
    *,
    cache: BlockCache | None = None,
    rehash: bool = False,
    probe: Probe = NO_PROBE,
) -> PullStats:
    """Make `path` the file of a version: complete, verified and synced, or leave it as it was.

    With `rehash` every block that is kept is hashed, even in a file that was not touched since it was pulled.
    Raises `usage` if something else is there, `busy` if another process writes to it or pulls, `disk_full`, `corrupt`,
    or what the store raises.
    """
    layout = layout_of(manifest)
    check_place(path)
    path = Path(os.path.realpath(path))
    part_path = path.with_name(f"{path.name}.part")
    with _disk_errors(path, part_path):
        there = check_replaceable(path)
        with _part_file(part_path) as part:
            pull = _Pull(_Source(store, layout, cache), path if there else None, part, progress, probe)
            table = pull.fill(rehash=rehash)
            with probe.step("pull.rename"):
                part_path.replace(path)
            _sync_folder(path.parent)
            write_state(path, manifest, layout, table)
    return pull.stats


@frozen
class _Source:
    """A version, and where its blocks are fetched from."""

    store: ObjectStore
    layout: FileLayout
    cache: BlockCache | None


class _Pull:
    """Turns a part into the file of a version."""

    def __init__(
        self, source: _Source, old: Path | None, part: IO[bytes], progress: Progress | None, probe: Probe
    ) -> None:
        self.stats = PullStats()
        self._store = source.store
        self._layout = source.layout
        self._cache = source.cache
        self._old = old
        self._part = part
        self._progress = progress
        self._probe = probe

    def fill(self, *, rehash: bool) -> BlockTable:
        """Put every block in its place; return the version's block table."""
        state = read_state(self._old) if self._old else None
        table = self._read_table(state)
        with self._probe.step("pull.copy"):
            known, resumed = self._begin(None if rehash else state)
        wanted = changed_blocks(known, table.hashes)
        os.ftruncate(self._part.fileno(), self._layout.size_bytes)
        _reserve(self._part, self._layout.size_bytes)
        self.stats.kept_blocks = len(table) - len(wanted)
        self._report()
        missing = [block for block in wanted if not self._put_local(table, block, resumed=resumed)]
        for block, body in read_blocks(self._store, table, self._layout, missing, self._moved, GAP_BYTES_MAX):
            self.stats.fetched_blocks += 1
            self._put(block, body)
            self._probe.point("pull.block", block=block)
        # Last, so that an incomplete part is not a valid database.
        with self._probe.step("pull.header"):
            header = read_extent(self._store, self._layout.header, HEADER_BYTES)
            self._moved(self._layout.header.length)
            os.pwrite(self._part.fileno(), header, 0)
            os.fsync(self._part.fileno())
        return table

    def _read_table(self, state: PullState | None) -> BlockTable:
        """Return the version's table; leaves of the last pull are not fetched again."""
        leaves = Leaves(self._store, self._layout, self._cache)
        if state is not None:
            old = {extent.checksum: number for number, extent in enumerate(state.layout.leaves)}
            for number, extent in enumerate(self._layout.leaves):
                same = old.get(extent.checksum)
                if same is not None:
                    leaves.learn(number, state.table.entries[same * LEAF_ENTRIES : (same + 1) * LEAF_ENTRIES])
        table = leaves.table()
        self._moved(leaves.fetched_bytes)
        return table

    def _begin(self, state: PullState | None) -> tuple[BlockBytes, bool]:
        """Begin the part with local blocks; return the hashes of its blocks, and whether another pull left it.

        `state` describes the old file, if that was not touched since, nor while it was copied.
        """
        if os.fstat(self._part.fileno()).st_size:
            return self._hash_part(), True
        if self._old is None:
            return np.zeros((0, HASH_BYTES), np.uint8), False
        with self._old.open("rb") as old:
            _copy(old, self._part)
        untouched = state is not None and state.identity == FileIdentity.of(self._old)
        return (state.table.hashes if state and untouched else self._hash_part()), False

    def _hash_part(self) -> BlockBytes:
        size = self._layout.block_bytes
        count = max(0, os.fstat(self._part.fileno()).st_size - HEADER_BYTES) // size
        found = np.zeros((count, HASH_BYTES), np.uint8)
        for block in range(count):
            body = os.pread(self._part.fileno(), size, HEADER_BYTES + block * size)
            found[block] = np.frombuffer(blake3(body).digest(), np.uint8)
        return found

    def _put_local(self, table: BlockTable, block: int, *, resumed: bool) -> bool:
        """Take a block from the cache, or from the old file if the part is not its copy; False if it is in neither."""
        digest = table.entries[block]["hash"].tobytes()
        body = self._cache.get(digest) if self._cache else None
        if body is None and resumed and self._old is not None:
            size = self._layout.block_bytes
            with self._old.open("rb") as old:
                body = os.pread(old.fileno(), size, HEADER_BYTES + block * size)
            if blake3(body).digest() != digest:
                body = None
        if body is None:
            return False
        self.stats.kept_blocks += 1
        self._put(block, body)
        return True

    def _put(self, block: int, body: bytes) -> None:
        os.pwrite(self._part.fileno(), body, HEADER_BYTES + block * self._layout.block_bytes)
        self._report()

    def _report(self) -> None:
        if self._progress:
            blocks = self.stats.kept_blocks + self.stats.fetched_blocks
            self._progress(HEADER_BYTES + blocks * self._layout.block_bytes, self._layout.size_bytes)

    def _moved(self, size_bytes: int) -> None:
        self.stats.moved_bytes += size_bytes


def _copy(source: IO[bytes], target: IO[bytes]) -> None:
    """Copy a file: sharing its blocks where the file system can, else in the kernel, else through our memory."""
    try:
        fcntl.ioctl(target.fileno(), _FICLONE, source.fileno())
    except OSError as e:
        if e.errno in FULL:
            raise
    else:
        return
    try:
        while os.copy_file_range(source.fileno(), target.fileno(), COPY_BYTES):
            pass
    except OSError as e:
        if e.errno not in _NO_KERNEL_COPY:
            raise
        shutil.copyfileobj(source, target, COPY_BYTES)


def _reserve(file: IO[bytes], size_bytes: int) -> None:
    """Allocate the whole file now: a full disk is found before anything is fetched."""
    try:
        os.posix_fallocate(file.fileno(), 0, size_bytes)
    except OSError as e:
        if e.errno not in _NO_FALLOCATE:
            raise


@contextmanager
def _part_file(part_path: Path) -> Iterator[IO[bytes]]:
    """Open the part for this pull alone; raises `busy` if another one has it."""
    while True:
        descriptor = os.open(part_path, os.O_RDWR | os.O_CREAT, 0o666)
        with os.fdopen(descriptor, "r+b", buffering=0) as part:
            try:
                fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RetryError(
                    Code.BUSY,
                    "Another pull is writing this file.",
                    where=str(part_path),
                    hint="Wait until it is done, or name another file.",
                ) from None
            if part_path.exists() and os.path.samestat(part_path.stat(), os.fstat(part.fileno())):
                yield part
                return
        # The other pull has just renamed it: open a new one.


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _disk_errors(path: Path, part_path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        message = f"Could not write {path}: {e.strerror}."
        if e.errno in FULL:
            part_path.unlink(missing_ok=True)  # free the space that it takes
            hint = "Nothing was changed. Free some space, then pull again."
            raise RetryError(Code.DISK_FULL, message, where=str(path), hint=hint) from e
        if e.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise OperatorError(Code.NOT_AUTHORIZED, message, where=str(path), hint="Name another place.") from e
        raise RetryError(Code.UNAVAILABLE, message, where=str(path), hint="Look at that disk; then try again.") from e
