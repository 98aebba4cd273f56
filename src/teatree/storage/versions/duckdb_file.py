"""Checks of a DuckDB file without DuckDB: whether it is one, and whether it is open for writing."""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

from teatree.contracts.errors import Code, RequestError, RetryError

OWN_MARKS = ("teatree.env", "manager.lock", ".tmp/../models")
"""What lies in the data folder of a running stack, in a model's folder there, and in an object store's."""
_MAGIC = b"DUCK"
_MAGIC_OFFSET = 8
_FLOCK = struct.Struct("hhqqi4x")
_OWN_FILES = Path("/proc/self/fd")


def check_place(path: Path) -> None:
    """Raise `usage` for a folder that is not there, and among an installation's own files."""
    if not path.parent.is_dir():
        raise RequestError(
            Code.USAGE,
            f"There is no folder {path.parent.absolute()}.",
            where=str(path),
            hint="Make it first, or name another place.",
        )
    for place in (path.absolute(), Path(os.path.realpath(path))):
        own = next((folder for folder in place.parents for mark in OWN_MARKS if (folder / mark).exists()), None)
        if own is not None:
            raise RequestError(
                Code.USAGE,
                f"{path} lies in {own}, where an installation of teatree keeps its own files.",
                where=str(path),
                hint="Name a place outside of it.",
            )


def check_replaceable(path: Path) -> bool:
    """Return whether there is a file at `path` that a version may replace, False if there is none.

    Raises `usage` for what is no DuckDB database or has a write-ahead log, `busy` for one that is being written.
    """
    if not path.exists():
        _check_log(path)
        return False
    if not path.is_file():
        raise RequestError(Code.USAGE, f"{path} is no file.", where=str(path), hint="Name a file.")
    if is_open_for_writing_here(path):
        raise _busy(path)
    # Not opened before the check above: closing a file drops the locks that this process has on it.
    with path.open("rb") as file:
        if file.read(_MAGIC_OFFSET + len(_MAGIC))[_MAGIC_OFFSET:] != _MAGIC:
            raise RequestError(
                Code.USAGE,
                f"{path} is not a DuckDB database: it is left as it is.",
                where=str(path),
                hint="Name another file, or move this one away.",
            )
        query = _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
        if _FLOCK.unpack(fcntl.fcntl(file.fileno(), fcntl.F_GETLK, query))[0] != fcntl.F_UNLCK:
            raise _busy(path)
    _check_log(path)
    return True


def _check_log(path: Path) -> None:
    log = path.with_name(f"{path.name}.wal")
    if log.exists():
        raise RequestError(
            Code.USAGE,
            f"{path.name} was changed: there is a write-ahead log, which DuckDB would apply to the version.",
            where=str(log),
            hint="Open the file once with DuckDB to keep those changes, or move the log away.",
        )


def _busy(path: Path) -> RetryError:
    return RetryError(
        Code.BUSY,
        f"{path.name} is open for writing in another connection.",
        where=str(path),
        hint="Close it there, or name another file; readers need not close it.",
    )


def is_open_for_writing_here(path: Path) -> bool:
    """Return whether this process has the file open for writing, which its own locks do not show."""
    if not _OWN_FILES.is_dir():  # not Linux
        return False
    wanted = path.stat()
    for name in os.listdir(_OWN_FILES):  # noqa: PTH208 - numbers, not paths
        try:
            found = os.fstat(int(name))
            same = (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino)
            if same and fcntl.fcntl(int(name), fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY:
                return True
        except OSError:
            continue  # closed meanwhile
    return False
