"""The lines of a log file: the last ones, then those that are added, across rotations.

A process may write lines of any length, and keep its file after the rotation: no more than `LINE_BYTES_MAX` of a line
is held, and the file before the newest is read to its end.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from attrs import frozen

LINE_BYTES_MAX = 1_000_000
"""Bytes of a line that are kept; the rest of it is counted."""
BLOCK_BYTES = 1 << 18

Keep = Callable[["LogLine"], bool]
"""Whether a line is wanted."""


@frozen
class LogLine:
    """A line without its end."""

    text: bytes
    cut_bytes: int = 0
    """Bytes after `text` that were left out."""


class LineSplitter:
    """Makes lines of the blocks of a file."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._cut_bytes = 0

    def lines(self, block: bytes) -> Iterator[LogLine]:
        """Yield the lines that this block ends."""
        *ended, rest = block.split(b"\n")
        for piece in ended:
            self._hold(piece)
            yield self.rest()
        self._hold(rest)

    def rest(self) -> LogLine:
        """Return what has no line end yet, and begin a new line."""
        line = LogLine(bytes(self._held), self._cut_bytes)
        self._held.clear()
        self._cut_bytes = 0
        return line

    def _hold(self, piece: bytes) -> None:
        room = LINE_BYTES_MAX - len(self._held)
        self._held += piece[:room]
        self._cut_bytes += max(0, len(piece) - room)


class LogFile:
    """A log file that is open for reading, and keeps being read under its path's next files."""

    def __init__(self, path: Path) -> None:
        """Open the file; raises `FileNotFoundError`, and `IsADirectoryError` for what is no file."""
        self._path = path
        self._current = _open(path)
        self._former: BinaryIO | None = None
        self._splitters = {self._current: LineSplitter()}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for file in self._splitters:
            file.close()

    def last(self, count: int, keep: Keep) -> tuple[Iterator[LogLine], int]:
        """Return the last `count` lines that are kept, and how many of them the file has."""
        end = self._current.seek(0, os.SEEK_END)
        start, found = end, 0
        for offset, line in _backwards(self._current, end):
            if found == count:
                break
            if keep(line):
                start, found = offset, found + 1
        self._current.seek(start)
        return filter(keep, self._read(self._current)), found

    def rest(self, keep: Keep) -> Iterator[LogLine]:
        """Return the last line if it has no end yet."""
        line = self._splitters[self._current].rest()
        return iter([line] if keep(line) else [])

    def added(self, keep: Keep) -> Iterator[LogLine]:
        """Return the lines that were added since the last call."""
        return filter(keep, self._added())

    def _added(self) -> Iterator[LogLine]:
        if self._former is not None:
            yield from self._read(self._former)
        if os.fstat(self._current.fileno()).st_size < self._current.seek(0, os.SEEK_CUR):  # it was emptied
            self._current.seek(0)
            self._splitters[self._current] = LineSplitter()
        yield from self._read(self._current)
        with suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
            if not os.path.samestat(self._path.stat(), os.fstat(self._current.fileno())):
                yield from self._rotated(_open(self._path))

    def _rotated(self, new: BinaryIO) -> Iterator[LogLine]:
        if self._former is not None:
            del self._splitters[self._former]
            self._former.close()
        self._former, self._current = self._current, new
        self._splitters[new] = LineSplitter()
        yield from self._read(self._former)
        yield from self._read(new)

    def _read(self, file: BinaryIO) -> Iterator[LogLine]:
        while block := file.read(BLOCK_BYTES):
            yield from self._splitters[file].lines(block)


def _open(path: Path) -> BinaryIO:
    """Open a regular file; a pipe would never end."""
    if path.exists() and not path.is_file():
        raise IsADirectoryError(path)
    return path.open("rb")


def _backwards(file: BinaryIO, end: int) -> Iterator[tuple[int, LogLine]]:
    """Yield the lines before `end`, the last first, each with its offset."""
    pending, cut_bytes, position = b"", 0, end
    while position > 0:
        size = min(BLOCK_BYTES, position)
        position -= size
        file.seek(position)
        pending = file.read(size) + pending
        offset = position + len(pending)
        pending, *lines = pending.split(b"\n")
        for line in reversed(lines):
            offset -= len(line)
            if line or offset < end:  # what follows the last line end is no line
                yield offset, LogLine(line[:LINE_BYTES_MAX], cut_bytes + max(0, len(line) - LINE_BYTES_MAX))
            cut_bytes = 0
            offset -= 1
        cut_bytes += max(0, len(pending) - LINE_BYTES_MAX)
        pending = pending[:LINE_BYTES_MAX]
    if end:
        yield 0, LogLine(pending, cut_bytes)
