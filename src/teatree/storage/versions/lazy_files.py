"""Versions as files for DuckDB: an fsspec filesystem whose files are fetched as they are read.

DuckDB's threads share one handle and call seek, then read: so the position is kept per thread. DuckDB does not close
handles, and turns an exception from `read` into text: the error itself is kept for the caller.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from io import SEEK_CUR, SEEK_END, SEEK_SET
from typing import Any

from fsspec import AbstractFileSystem
from typing_extensions import override

from teatree.contracts.errors import TeatreeError
from teatree.storage.versions.blocks import VersionFile

Explain = Callable[[TeatreeError], TeatreeError]
"""Turns an error of the store into the error for a reader of the version."""


class LazyHandle:
    """A version's file, open for reading by any number of threads."""

    def __init__(self, file: VersionFile, fault: Callable[[TeatreeError], TeatreeError]) -> None:
        self._file = file
        self._fault = fault
        self._local = threading.local()

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        """Move this thread's position."""
        base = {SEEK_SET: 0, SEEK_CUR: self.tell(), SEEK_END: self._file.size_bytes}[whence]
        self._local.position = base + offset
        return base + offset

    def tell(self) -> int:
        """Return this thread's position."""
        position: int = getattr(self._local, "position", 0)
        return position

    def read(self, length: int = -1) -> bytes:
        """Return up to `length` bytes from this thread's position on."""
        position = self.tell()
        if length < 0:
            length = self._file.size_bytes - position
        try:
            body = self._file.read(position, length)
        except TeatreeError as e:
            raise self._fault(e) from e
        self._local.position = position + len(body)
        return body

    def close(self) -> None:
        """Nothing is held open."""


class LazyFiles(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """The versions that one database has attached, by the names that it gave them."""

    cachable = False
    """Otherwise fsspec keeps every instance for ever."""

    def __init__(self, protocol: str) -> None:
        super().__init__()
        self.protocol = protocol
        self.fault: TeatreeError | None = None
        """The last error of a read."""
        self.owner: object = None
        """An object to keep alive while DuckDB keeps this filesystem."""
        self._files: dict[str, tuple[VersionFile, Explain]] = {}

    def add(self, name: str, file: VersionFile, explain: Explain) -> str:
        """Make a version known; return the path under which DuckDB opens it."""
        self._files[name] = (file, explain)
        return f"{self.protocol}://{name}"

    def forget(self, name: str) -> None:
        """Remove a version; open handles keep it."""
        self._files.pop(name, None)

    def take_fault(self) -> TeatreeError | None:
        """Return the error of a read since the last call, None if there was none."""
        fault, self.fault = self.fault, None
        return fault

    @override
    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Return what DuckDB asks for: whether it is a file, and its size."""
        return {"name": path, "type": "file", "size": self._find(path)[0].size_bytes}

    @override
    def open(self, path: str, mode: str = "rb", **_: Any) -> LazyHandle:
        """Open a version; there is nothing to write to."""
        if mode != "rb":
            raise PermissionError(f"{path} is a version: it never changes.")
        file, explain = self._find(path)

        def fault(error: TeatreeError) -> TeatreeError:
            self.fault = explain(error)
            return self.fault

        return LazyHandle(file, fault)

    @override
    def exists(self, path: str, **_: Any) -> bool:
        """Return whether there is such a version; there is never a write-ahead log."""
        return self._name(path) in self._files

    @override
    def modified(self, path: str) -> datetime:
        """Return the same moment always: a version never changes."""
        return datetime.fromtimestamp(0, UTC)

    def _name(self, path: str) -> str:
        return path.removeprefix(f"{self.protocol}://")

    def _find(self, path: str) -> tuple[VersionFile, Explain]:
        found = self._files.get(self._name(path))
        if found is None:
            raise FileNotFoundError(path)
        return found
