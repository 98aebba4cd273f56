"""The local block cache: one folder that all processes share, each block a file named by its blake3.

Processes do not coordinate. A block appears by rename, whole or not at all, and is hashed whenever it is read: a file
that a crash or a bad disk damaged is removed and counts as missing. A file's modification time is when it was last used
(within `TOUCH_S`). Every block written appends one byte to `added`, a counter without a lock; the process that brings
it to `1 / CLEAN_PARTS` of the limit removes the least recently used blocks. So the folder holds at most the limit, plus
the blocks that are being written at that moment.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from attrs import frozen
from blake3 import blake3

from teatree.contracts.errors import Code, OperatorError
from teatree.storage.disk import FULL

CLEAN_PARTS = 16
"""A clean-up leaves this part of the limit free; the next one starts when that part may be used up."""
TOUCH_S = 60.0
"""Seconds by which a file's time of last use may be behind: most reads then write nothing."""
TEMP_AGE_S_MAX = 3_600.0
"""Seconds after which a temporary file is a leftover of a crash."""
_COUNTED_BYTES = 262_144
"""What one byte of `added` counts: a block at most; nothing longer is kept."""


@frozen
class _Kept:
    """A file of the cache."""

    used_at: float
    size_bytes: int
    path: str


class BlockCache:
    """A bounded folder of blocks; threads share one, and so may any number of processes share its folder."""

    def __init__(self, folder: Path, bytes_max: int) -> None:
        """Use `folder`, created if missing; raises `wrong_configuration` if that is not possible."""
        self.folder = folder
        self.bytes_max = bytes_max
        self._blocks = folder / "blocks"
        self._added = folder / "added"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._blocks.mkdir(exist_ok=True)
        except OSError as e:
            raise OperatorError(
                Code.WRONG_CONFIGURATION,
                f"The block cache {folder} cannot be used: {e.strerror}.",
                where="TEATREE_CACHE_FOLDER",
                hint="Name a folder that this user can write, or set it empty to run without a cache.",
            ) from e

    def get(self, digest: bytes) -> bytes | None:
        """Return the bytes that hash to `digest`, None if they are not here."""
        path = self._path(digest)
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            info = os.fstat(descriptor)
            body = os.read(descriptor, info.st_size)
        finally:
            os.close(descriptor)
        if blake3(body).digest() != digest:
            with suppress(FileNotFoundError):
                os.unlink(path)  # noqa: PTH108 - paths are texts here: this runs for every block
            return None
        if time.time() - info.st_mtime > TOUCH_S:
            with suppress(FileNotFoundError, PermissionError):
                os.utime(path)
        return body

    def has(self, digest: bytes) -> bool:
        """Return whether there is a file for a block; only `get` checks its content."""
        return os.path.exists(self._path(digest))  # noqa: PTH110

    def put(self, digest: bytes, body: bytes) -> bool:
        """Keep bytes that hash to `digest`; False if they do not fit, which is no error of a cache."""
        if len(body) > min(_COUNTED_BYTES, self.bytes_max // CLEAN_PARTS):
            return False
        path = self._path(digest)
        temp = f"{path}.{secrets.token_hex(8)}.tmp"
        try:
            try:
                self._write(temp, body)
            except FileNotFoundError:
                os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
                self._write(temp, body)
            os.replace(temp, path)  # noqa: PTH105
            added = self._count()
        except OSError as e:
            with suppress(FileNotFoundError):
                os.unlink(temp)  # noqa: PTH108
            if e.errno in FULL:
                return False
            raise
        if self._needs_cleaning(added):
            self.clean()
        return True

    def size_bytes(self) -> int:
        """Return the bytes that the cache holds now; reads the size of every file."""
        return sum(kept.size_bytes for kept in self._files())

    def clean(self) -> None:
        """Remove the least recently used blocks, unless another process does so at this moment.

        Processes that write meanwhile rely on this call: it repeats until few blocks were added during its last pass.
        """
        while True:
            with (self.folder / "clean.lock").open("ab") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return
                self._clean()
            if not self._needs_cleaning(self._added.stat().st_size):
                return

    def _clean(self) -> None:
        # Reset the counter before listing: a block written meanwhile is listed, or counted for the next time, or both.
        os.truncate(self._added, 0)
        files = sorted(self._files(), key=lambda kept: kept.used_at)
        excess = sum(kept.size_bytes for kept in files) - self.bytes_max * (CLEAN_PARTS - 1) // CLEAN_PARTS
        for kept in files:
            if excess <= 0:
                return
            with suppress(FileNotFoundError):
                os.unlink(kept.path)  # noqa: PTH108
            excess -= kept.size_bytes

    def _needs_cleaning(self, added: int) -> bool:
        return added * _COUNTED_BYTES > self.bytes_max // CLEAN_PARTS

    def _path(self, digest: bytes) -> str:
        name = digest.hex()
        return f"{self._blocks}/{name[:2]}/{name}"

    @staticmethod
    def _write(path: str, body: bytes) -> None:
        # Not synced: a block that a power cut left half-written does not match its hash.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            view = memoryview(body)
            while view:
                view = view[os.write(descriptor, view) :]
        finally:
            os.close(descriptor)

    def _count(self) -> int:
        """Count one block more; return how many were written since the last clean-up, by all processes."""
        descriptor = os.open(self._added, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(descriptor, b"+")
            return os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)

    def _files(self) -> Iterator[_Kept]:
        now = time.time()
        for shard in os.scandir(self._blocks):
            with suppress(NotADirectoryError), os.scandir(shard.path) as entries:
                for entry in entries:
                    with suppress(FileNotFoundError):  # another process removed it
                        info = entry.stat(follow_symlinks=False)
                        if not entry.name.endswith(".tmp"):
                            yield _Kept(info.st_mtime, info.st_size, entry.path)
                        elif now - info.st_mtime > TEMP_AGE_S_MAX:
                            os.unlink(entry.path)  # noqa: PTH108
