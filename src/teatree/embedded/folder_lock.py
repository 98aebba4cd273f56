"""The lock on a data folder: one stack at a time. The kernel releases it, however its holder ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from teatree.contracts.errors import Code, RetryError


class FolderLock:
    """An exclusive lock, held from `take` to `release`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def take(self) -> None:
        """Take the lock; raises `busy` if another process holds it."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 20).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise RetryError(
                Code.BUSY,
                f"Another `teatree up` (process {holder}) runs on this data folder.",
                where=str(self._path.parent),
                hint="Stop it, or choose another folder with --data.",
            ) from None
        os.truncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        self._descriptor = descriptor

    def release(self) -> None:
        """Release the lock; the file stays, since other processes may have it open."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
