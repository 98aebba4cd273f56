"""What a disk says to a file's writer and reader: that it is full, and that it cannot read what it holds."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from teatree.contracts.errors import Code, CorruptError, RetryError

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""No room on the disk, in the user's part of it, or under the process's limit of a file's size."""
UNREADABLE = errno.EIO
"""A sector that the disk cannot read: what is there is lost, as if it were damaged."""


@contextmanager
def telling_full(what: str, path: Path) -> Iterator[None]:
    """Raise `disk_full` where `what` could not be written because of it; other errors pass as they are."""
    try:
        yield
    except OSError as e:
        if e.errno not in FULL:
            raise
        message = f"{what} was not written: {e.strerror}."
        raise RetryError(Code.DISK_FULL, message, where=str(path), hint="Free some space on that disk.") from e


@contextmanager
def telling_unreadable(what: str, path: Path, kind: type[CorruptError] = CorruptError) -> Iterator[None]:
    """Raise damage of `kind` where the disk cannot read a sector of `what`; other errors pass as they are."""
    try:
        yield
    except OSError as e:
        if e.errno != UNREADABLE:
            raise
        raise kind(f"{what} cannot be read: {e.strerror}.", where=str(path)) from e
