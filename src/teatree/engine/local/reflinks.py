"""Copies of a file: reflinks where the file system supports them, else byte by byte in the kernel."""

from __future__ import annotations

import fcntl
import shutil
from pathlib import Path

_FICLONE = 0x40049409
"""The Linux ioctl that makes one file share another's blocks (ioctl_ficlone(2))."""


class Reflinks:
    """Copies that share their blocks; remembers whether the file system supports them."""

    def __init__(self) -> None:
        self._refused = False
        self.work = False
        """Whether one was made."""

    def make(self, source: Path, target: Path) -> bool:
        """Make `target` share the blocks of `source`; return False, and leave no file, where that is not supported."""
        if self._refused:
            return False
        with source.open("rb") as old, target.open("wb") as new:
            try:
                fcntl.ioctl(new.fileno(), _FICLONE, old.fileno())
            except OSError:  # not on this file system
                self._refused = True
        if self._refused:
            target.unlink()
        self.work = not self._refused
        return self.work


def copy_file(source: Path, target: Path) -> None:
    """Copy a file's bytes, in the kernel where it can."""
    shutil.copyfile(source, target)
