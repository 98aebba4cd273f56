"""A user's DuckDB file, open for reading and writing in this process alone, as DuckDB would open it.

Teatree writes nothing into it. It is read through one descriptor that is opened after the database and closed after it:
closing any other descriptor would drop the lock that keeps other processes out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from teatree.contracts.errors import Code, OperatorError, RequestError, RetryError, TeatreeError
from teatree.contracts.names import new_id
from teatree.engine.duckdb.block_file import BLOCK_BYTES, BlockFile
from teatree.storage.versions.duckdb_file import is_open_for_writing_here

_NO_CHECKPOINTS = {"wal_autocheckpoint": "1000GB", "auto_checkpoint_skip_wal_threshold": str(2**40)}
"""While a version is read only its own checkpoint may write (docs/decisions/0005)."""

TRIES_MAX = 50
"""Most checkpoints until no transaction is committed between one and our own transaction."""


class UserFile(BlockFile):
    """A user's file, with the user's connection and a separate one for publishing."""

    def __init__(self, path: Path) -> None:
        """Open or create a file; raises `busy` if it is open elsewhere, `bad_source` if it is no DuckDB file."""
        self.connection = _connect(path)
        try:
            super().__init__(path, self.connection.cursor(), os.open(path, os.O_RDONLY))
        except BaseException:
            self.connection.close()
            raise
        self._check_blocks()

    def _check_blocks(self) -> None:
        ((block_bytes,),) = self.rows(
            "SELECT block_size FROM pragma_database_size() WHERE database_name = current_database()"
        )
        if block_bytes != BLOCK_BYTES:
            self.close()
            raise RequestError(
                Code.BAD_SOURCE,
                f"{self.path.name} has blocks of {block_bytes} bytes; only DuckDB's {BLOCK_BYTES} are supported.",
                where=str(self.path),
                hint="`COPY FROM DATABASE` into a new file, and use that.",
            )

    @property
    def own_connection(self) -> duckdb.DuckDBPyConnection:
        """The connection for publishing, in which none of the user's transactions run."""
        return self._con

    @contextmanager
    def checkpointed(self) -> Iterator[None]:
        """Write everything committed into the main file, and leave that unchanged while the block runs.

        Transactions continue meanwhile, in the write-ahead log; statements in the block see the main file's content.
        Raises `busy` if transactions follow each other too fast for a checkpoint between two of them.
        """
        before = {name: self.rows(f"SELECT current_setting('{name}')")[0][0] for name in _NO_CHECKPOINTS}
        try:
            for name, value in _NO_CHECKPOINTS.items():
                self.rows(f"SET GLOBAL {name} = '{value}'")
            self._begin_at_checkpoint()
            try:
                yield
            finally:
                self.rows("ROLLBACK")
        finally:
            for name, value in before.items():
                self.rows(f"SET GLOBAL {name} = '{value}'")

    def _begin_at_checkpoint(self) -> None:
        """Begin a transaction that sees exactly what a checkpoint wrote, with no commit in between."""
        log = self.path.with_name(f"{self.path.name}.wal")
        for _ in range(TRIES_MAX):
            self.checkpoint()
            self.rows("BEGIN")
            self.rows("SELECT count(*) FROM duckdb_tables()")
            if not log.exists() or not log.stat().st_size:
                return
            self.rows("ROLLBACK")
        raise RetryError(
            Code.BUSY,
            f"Transactions on {self.path.name} follow each other too fast.",
            where=str(self.path),
            hint="Publish when fewer of them run.",
        )

    def close(self) -> None:
        """Close the database, which writes its log into the file, then the descriptor that kept its lock.

        If the user still has a connection open, the database and the descriptor stay open.
        """
        self._con.close()
        self.connection.close()
        if not is_open_for_writing_here(self.path):
            self.close_descriptor()


def _connect(path: Path) -> duckdb.DuckDBPyConnection:
    if path.exists() and is_open_for_writing_here(path):
        raise _busy(path, "in this process")
    try:
        # The unique user agent prevents another connection of this process from sharing the database: closing ours
        # would drop the lock of both.
        return duckdb.connect(str(path), config={"custom_user_agent": f"teatree/{new_id()}"})
    except duckdb.Error as e:
        raise _open_error(path, e) from e


def _busy(path: Path, holder: str) -> RetryError:
    return RetryError(Code.BUSY, f"{path.name} is open {holder}.", where=str(path), hint="Close it there first.")


def _open_error(path: Path, error: duckdb.Error) -> TeatreeError:
    text = str(error).splitlines()[0]
    if "Could not set lock" in text:
        return _busy(path, "in another process")
    if isinstance(error, duckdb.ConnectionException) or "Unique file handle" in text:
        return _busy(path, "in this process")
    if "not a valid DuckDB database" in text:
        return RequestError(Code.BAD_SOURCE, f"{path.name} is not a DuckDB database.", where=str(path))
    if not path.exists():
        return RequestError(Code.USAGE, f"{path} cannot be created: {text}", where=str(path))
    if not os.access(path, os.R_OK | os.W_OK):
        return OperatorError(
            Code.NOT_AUTHORIZED,
            f"{path.name} cannot be opened for writing, which DuckDB's checkpoint needs.",
            where=str(path),
            hint="Ask for the permission, or work on a copy.",
        )
    return RequestError(Code.BAD_SOURCE, f"DuckDB cannot open {path.name}: {text}", where=str(path))
