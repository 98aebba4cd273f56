"""A DuckDB file that this process has open: statements through one connection, blocks through one descriptor.

DuckDB's lock on the file is a POSIX record lock: any close of any descriptor of that file by this process drops it. So
one descriptor serves every read, and is closed after the database.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb

from teatree.contracts.errors import CorruptError, TeatreeError
from teatree.engine.duckdb.errors import translate
from teatree.storage.disk import translating_unreadable

BLOCK_BYTES = 262_144
"""DuckDB's default; files with smaller blocks are refused where they are opened."""


def run_rows(
    con: duckdb.DuckDBPyConnection, sql: str, parameters: Sequence[Any] | dict[str, Any] = ()
) -> list[tuple[Any, ...]]:
    """Run one statement and return its rows; raises Teatree errors instead of DuckDB's."""
    try:
        return con.execute(sql, parameters or None).fetchall()
    except duckdb.Error as e:
        raise translate(e) from e


class BlockFile:
    """An open DuckDB file from which versions are captured."""

    def __init__(self, path: Path, connection: duckdb.DuckDBPyConnection, descriptor: int) -> None:
        self.path = path
        self._con = connection
        self._descriptor = descriptor

    @property
    def size_bytes(self) -> int:
        """Size of the main file, without its write-ahead log."""
        return os.fstat(self._descriptor).st_size

    def read_at(self, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes of the main file; raises `corrupt` where it ends or cannot be read."""
        with translating_unreadable(f"Byte {offset} of the file", self.path):
            body = os.pread(self._descriptor, length, offset)
        if len(body) != length:
            raise CorruptError(
                f"The file ends after {offset + len(body)} bytes; {offset + length} were expected.",
                where=str(self.path),
            )
        return body

    def read_if_there(self, offset: int, length: int) -> bytes | None:
        """Return the same, None if they are damaged or missing, or the file was closed; any thread may call it."""
        try:
            return self.read_at(offset, length)
        except (TeatreeError, OSError):
            return None

    def rows(self, sql: str, parameters: Sequence[Any] | dict[str, Any] = ()) -> list[tuple[Any, ...]]:
        """Run one statement and return its rows; raises Teatree errors instead of DuckDB's."""
        return run_rows(self._con, sql, parameters)

    def checkpoint(self) -> None:
        """Write everything committed into the main file."""
        self.rows("CHECKPOINT")

    def close_descriptor(self) -> None:
        """Close the descriptor, and with it drop the lock: the database must be closed already."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
