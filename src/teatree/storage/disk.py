"""Errors of a disk as Teatree errors: it is full, not writable now, or cannot read a sector."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from teatree.contracts.errors import Code, CorruptError, RetryError

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""No room on the disk, in the user's part of it, or under the process's limit of a file's size."""
AWAY = frozenset(
    {
        errno.EROFS,
        errno.EACCES,
        errno.EPERM,
        errno.EMFILE,
        errno.ENFILE,
        errno.ESTALE,
        errno.EIO,
        errno.EBUSY,
        errno.ENODEV,
        errno.ENXIO,
        errno.ENOTCONN,
        errno.ETIMEDOUT,
        errno.ENOMEM,
    }
)
"""States of a disk, a mount or a process that pass, through no fault of a request: read-only, too many open files."""
UNREADABLE = errno.EIO
"""A sector that the disk cannot read: what is there is lost, as if it were damaged."""


@contextmanager
def translating_disk_full(what: str, path: Path) -> Iterator[None]:
    """Raise `disk_full` where `what` could not be written because of it, `unavailable` where the disk is."""
    try:
        yield
    except OSError as e:
        message = f"{what} was not written: {e.strerror}."
        if e.errno in FULL:
            raise RetryError(Code.DISK_FULL, message, where=str(path), hint="Free some space on that disk.") from e
        if e.errno in AWAY:
            raise RetryError(Code.UNAVAILABLE, message, where=str(path), hint="Is the disk mounted for writing?") from e
        raise


@contextmanager
def translating_unreadable(what: str, path: Path, kind: type[CorruptError] = CorruptError) -> Iterator[None]:
    """Raise damage of `kind` where the disk cannot read a sector of `what`; other errors pass as they are."""
    try:
        yield
    except OSError as e:
        if e.errno != UNREADABLE:
            raise
        raise kind(f"{what} cannot be read: {e.strerror}.", where=str(path)) from e
