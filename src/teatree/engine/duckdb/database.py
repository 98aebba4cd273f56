"""The read-write DuckDB file of a model, set up so that it is checkpointed only on request.

Concurrency: one thread at a time uses a `Database`; `read_at` may be called by another while no checkpoint runs. Blocks
that a checkpoint wrote are not overwritten before the next one, so the file is read between two checkpoints without a
copy.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Self

import attrs
import duckdb

from teatree.contracts.clock import SYSTEM_CLOCK, Clock
from teatree.contracts.errors import Code, CorruptError, OperatorError, RequestError, RetryError, TeatreeError
from teatree.contracts.formats.requests import Request
from teatree.contracts.settings import LimitSettings
from teatree.datasets.ddl import quote_literal
from teatree.engine.base import OnStuck
from teatree.engine.duckdb.block_file import BlockFile
from teatree.engine.duckdb.errors import is_disk_fault, translate
from teatree.engine.duckdb.guard.guard import lock_down
from teatree.engine.duckdb.rows_watch import RowsWatch
from teatree.engine.duckdb.watchdog import Block, Watchdog
from teatree.engine.errors import InvalidatedError, damage_of_file
from teatree.functions.others import Others

_ATTACHED_SNAPSHOT = "attached_snapshot"
CHECKPOINT_MEMORY_FACTOR = 3
"""Multiple of `memory_bytes_max` for a checkpoint that ran out of memory: DuckDB doubles its buffers of long texts."""


# More than ten public methods: each is one thing that is done to the file, used by one caller.
class Database(BlockFile):
    """An open read-write model file."""

    def __init__(
        self,
        path: Path,
        limits: LimitSettings,
        storage_version: str | None = None,
        on_stuck: OnStuck | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """Open or create the file; raises `corrupt` if DuckDB cannot, `busy` if another process has it open.

        `on_stuck` ends the process when requests of one transaction do not end.
        """
        self._limits = limits
        self._on_stuck = on_stuck
        self._log = path.with_name(f"{path.name}.wal")
        self._holds_snapshot = False
        self._is_left = False
        self.others: Others | None = None
        """Where functions read other models meanwhile: an interrupt reaches that too."""
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDONLY) if path.exists() else -1
        try:
            con = _open(path, limits, storage_version)
        except duckdb.Error as e:
            if descriptor >= 0:
                os.close(descriptor)
            raise _open_error(path, e) from e
        super().__init__(path, con, descriptor if descriptor >= 0 else os.open(path, os.O_RDONLY))
        self._watchdog = Watchdog(
            self._interrupt,
            stuck_ms_max=limits.stuck_ms_max,
            resident_bytes_max=limits.resident_bytes_max or None,
            clock=clock,
        )
        self.rows_watch = RowsWatch(self._con.cursor(), lambda: self.size_bytes, self._watchdog.interrupt, clock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the database, then the descriptor that kept its lock."""
        self._watchdog.close()
        self.rows_watch.close()
        self._con.close()
        self.close_descriptor()

    @property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """The connection, for what SQL texts cannot express: Arrow tables, parsing."""
        return self._con

    @contextmanager
    def transaction(self, requests: Sequence[Request] = ()) -> Iterator[None]:
        """Run the block in one transaction, for `requests`: committed at its end, rolled back after any error.

        `COMMIT` after an error returns success and rolls back: the caller verifies a commit by its offset.
        """
        self.begin()
        try:
            yield
            self.commit(requests)
        except BaseException:
            self.rollback()
            raise

    def begin(self) -> None:
        """Begin a transaction; raises `unavailable` after `leave`."""
        if self._is_left:
            raise RetryError(Code.UNAVAILABLE, "The manager is shutting down.", where=str(self.path))
        self.rows_watch.begin()
        self.rows("BEGIN")

    def commit(self, requests: Sequence[Request] = ()) -> None:
        """Commit, for `requests`; never interrupted, since it may already have taken effect."""
        with self.time_limit(self._limits.request_time_ms_max, "COMMIT", requests, may_interrupt=False):
            self.rows("COMMIT")
        self._detach_snapshot()

    def rollback(self) -> None:
        """Roll back; also after a COMMIT that failed and has ended the transaction."""
        try:
            self._con.execute("ROLLBACK")
        except duckdb.TransactionException:
            pass
        except duckdb.Error as e:
            raise translate(e) from e
        finally:
            self._detach_snapshot()

    def _detach_snapshot(self) -> None:
        if self._holds_snapshot:
            self.rows(f"DETACH DATABASE IF EXISTS {_ATTACHED_SNAPSHOT}")
            self._holds_snapshot = False

    def logged_bytes(self) -> int:
        """Return the length of the write-ahead log; each commit of a change extends it."""
        try:
            return self._log.stat().st_size
        except FileNotFoundError:  # before the first commit after a checkpoint
            return 0

    @property
    def attached_snapshot(self) -> Path:
        """The only other file that this database can attach: an earlier version, for `restore`."""
        return _attached_snapshot(self.path)

    def attach_snapshot(self) -> str:
        """Attach `attached_snapshot`, read-only, until the open transaction ends; return the name of its database."""
        self._holds_snapshot = True
        try:
            self.rows(f"ATTACH {quote_literal(str(self.attached_snapshot))} AS {_ATTACHED_SNAPSHOT} (READ_ONLY)")
        except TeatreeError as e:  # perhaps written by another DuckDB: only the request fails, the model continues
            raise RetryError(Code.SOURCE_UNAVAILABLE, f"The version cannot be opened: {e.message}") from e
        return _ATTACHED_SNAPSHOT

    def time_limit(
        self, limit_ms: int, what: str, requests: Sequence[Request] = (), *, may_interrupt: bool = True
    ) -> AbstractContextManager[Block]:
        """Interrupt the block, which runs for `requests`, after `limit_ms`, and raise `timed_out`.

        If the interrupt has no effect, `on_stuck` is called.
        """
        on_stuck = None
        if self._on_stuck is not None and requests:
            on_stuck = partial(self._on_stuck, requests)
        return self._watchdog.limit(limit_ms, what, on_stuck=on_stuck, may_interrupt=may_interrupt)

    def held_bytes(self) -> int:
        """Return the bytes that DuckDB holds while no statement runs, beside blocks and rows."""
        return self.rows_watch.held_bytes()

    def leave(self) -> None:
        """Interrupt the running statement and begin no further transaction; may be called by any thread.

        A request that is interrupted in this way must not be refused.
        """
        self._is_left = True
        self._interrupt()

    def _interrupt(self) -> None:
        self._con.interrupt()
        if self.others is not None:
            self.others.interrupt()


def reopened(
    path: Path,
    limits: LimitSettings,
    on_stuck: OnStuck | None,
    error: InvalidatedError,
    clock: Clock = SYSTEM_CLOCK,
) -> Database:
    """Open a file again that was closed after `error`; raises DamagedFileError if it cannot be read."""
    with damage_of_file():
        if error.code is Code.OVER_LIMIT:
            checkpoint_with_more_memory(path, limits)
        return Database(path, limits, on_stuck=on_stuck, clock=clock)


def checkpoint_with_more_memory(path: Path, limits: LimitSettings) -> None:
    """Checkpoint a file that is not open, with more memory than its statements may use and on one thread.

    Committed changes must be checkpointed, else the model would stop; raises `internal` if the memory is not enough.
    """
    roomy = attrs.evolve(limits, memory_bytes_max=CHECKPOINT_MEMORY_FACTOR * limits.memory_bytes_max, threads=1)
    with Database(path, roomy) as database:
        try:
            database.checkpoint()
        except RetryError as e:
            if e.code is not Code.OVER_LIMIT:
                raise
            raise OperatorError(
                Code.INTERNAL,
                f"The committed changes cannot be checkpointed within {roomy.memory_bytes_max} bytes: {e.message}",
                where=str(path),
                hint="Raise TEATREE_LIMITS_MEMORY_BYTES_MAX and TEATREE_MANAGER_PROCESS_MEMORY_BYTES_MAX.",
            ) from e


def limit_temp(con: duckdb.DuckDBPyConnection, limits: LimitSettings) -> None:
    """Bound a database's temporary files; DuckDB 2.0 ignores the limit among the options of `connect`."""
    con.execute(f"SET max_temp_directory_size = '{limits.temp_bytes_max}B'")


def _open(path: Path, limits: LimitSettings, storage_version: str | None) -> duckdb.DuckDBPyConnection:
    temp = path.parent / "tmp"
    con = duckdb.connect(
        ":memory:",
        config={
            "threads": limits.threads,
            "memory_limit": f"{limits.memory_bytes_max}B",
            "temp_directory": str(temp),
            # No automatic checkpoints: the file must not change while a version is read (docs/decisions/0005).
            "wal_autocheckpoint": "1000GB",
            "auto_checkpoint_skip_wal_threshold": str(2**40),
            "preserve_insertion_order": "true",
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
        },
    )
    try:
        version = (
            f" (STORAGE_VERSION {quote_literal(storage_version)})" if storage_version and not path.exists() else ""
        )
        con.execute(f"ATTACH {quote_literal(str(path))} AS model{version}")
        con.execute("USE model")
        limit_temp(con, limits)
        # zstd reads 2,048 values into one buffer of twice their size: some texts of a megabyte would not fit.
        con.execute("SET disabled_compression_methods = 'zstd'")
        con.execute("SET TimeZone = 'UTC'")
        con.execute("PRAGMA disable_checkpoint_on_shutdown")
        attached_snapshot = str(_attached_snapshot(path))
        con.execute(
            f"SET allowed_paths = [{quote_literal(attached_snapshot)}, {quote_literal(attached_snapshot + '.wal')}]"
        )
        lock_down(con)
    except BaseException:
        con.close()
        raise
    return con


def _attached_snapshot(path: Path) -> Path:
    return path.with_name("attached_snapshot.duckdb")


def _open_error(path: Path, e: duckdb.Error) -> TeatreeError:
    if "Could not set lock" in str(e):
        return RetryError(
            Code.BUSY, f"Another process has {path.name} open.", where=str(path), hint="Is another manager running?"
        )
    if isinstance(e, duckdb.InvalidInputException):
        return RequestError(Code.BAD_ARGUMENT, str(e).splitlines()[0], where="storage_version")
    if is_disk_fault(str(e)) and not isinstance(found := translate(e), CorruptError):
        return found
    return CorruptError(f"DuckDB cannot open the file: {str(e).splitlines()[0]}", where=str(path))
