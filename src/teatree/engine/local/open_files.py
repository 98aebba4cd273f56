"""Detection of processes that have a file open: by DuckDB's shared lock, and by a lease of the kernel."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import struct
from pathlib import Path

_FLOCK = struct.Struct("hhqqi4x")
_REFUSED = (errno.EAGAIN, errno.EACCES)


def is_open_elsewhere(path: Path) -> bool:
    """Return whether another process holds a lock on a file, as DuckDB does while it has it open.

    Must not be called for a file that this process has open: closing the descriptor would drop that lock.
    """
    descriptor = os.open(path, os.O_RDWR)
    try:
        return _is_locked(descriptor)
    finally:
        os.close(descriptor)


def is_open_anywhere(path: Path) -> bool:
    """Return whether any process has a file open, with a lock or without: to copy it, for example.

    Where the file system grants no leases, only locks are tested. Must not be called for a file that this process has
    open.
    """
    descriptor = os.open(path, os.O_RDWR)
    try:
        return _is_locked(descriptor) or not _grants_lease(descriptor)
    finally:
        os.close(descriptor)


def _is_locked(descriptor: int) -> bool:
    query = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    answer = _FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_GETLK, query))
    return int(answer[0]) != fcntl.F_UNLCK


def _grants_lease(descriptor: int) -> bool:
    """Return whether there is no other open descriptor of the file: only then a write lease is granted (fcntl(2))."""
    if not hasattr(fcntl, "F_SETLEASE"):
        return True
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)  # sent if it is opened now; SIGIO would end us
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as e:
        return e.errno not in _REFUSED
    return True
