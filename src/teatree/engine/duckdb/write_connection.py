"""Transactions on a model's DuckDB file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

from typing_extensions import override

from teatree.contracts.errors import Code, OperatorError
from teatree.contracts.formats.requests import Request
from teatree.contracts.settings import LimitSettings
from teatree.engine.base import TimedBlock, WriteConnection
from teatree.engine.commits import Commit
from teatree.engine.duckdb.commit_table import is_committed, record_commit
from teatree.engine.duckdb.database import Database
from teatree.engine.duckdb.handle import WriteHandle
from teatree.engine.duckdb.private_memory import PRIVATE_MEMORY
from teatree.engine.duckdb.rows_watch import RowBytes
from teatree.functions.traits import Traits


class DuckDBConnection(WriteConnection):
    """Runs transactions on one open file."""

    def __init__(self, database: Database, limits: LimitSettings) -> None:
        self._database = database
        self._limits = limits
        self._handle = WriteHandle(database, limits)
        self._requests: Sequence[Request] = ()
        self._logged_bytes = 0
        """The length of the write-ahead log when the transaction began."""

    @property
    @override
    def handle(self) -> WriteHandle:
        return self._handle

    @override
    def begin(self, requests: Sequence[Request]) -> None:
        self._logged_bytes = self._database.logged_bytes()
        self._requests = requests
        self._database.begin()
        self._handle.begin()

    @override
    def commit(self, commit: Commit, shipped_version: int | None) -> None:
        record_commit(self._database, commit, shipped_version)
        self._database.commit(self._requests)
        if self._database.logged_bytes() <= self._logged_bytes:  # COMMIT after an error returns success
            raise OperatorError(Code.INTERNAL, f"The commit of request {commit.offset} did not take effect.")

    @override
    def rollback(self) -> None:
        self._handle.forget()
        self._database.rollback()

    @override
    def is_committed(self, seq: int) -> bool:
        return is_committed(self._database, seq)

    @override
    def time_limit(self, limit_ms: int, what: str, requests: Sequence[Request]) -> AbstractContextManager[TimedBlock]:
        return self._database.time_limit(limit_ms, what, requests)

    @override
    def memory_limit(self, traits: Traits, *, exactly: bool) -> AbstractContextManager[object]:
        """Limit the rows that the block makes, and the allocations beside DuckDB's unless it runs no user's statement.

        Rows that a function copies may take `load_bytes_max`, as far as DuckDB writes them into the file before the
        commit. Others must fit into memory during the commit, which cannot be interrupted. A function of an app
        allocates beside DuckDB as a user's statement does.
        """
        limits, copies = self._limits, traits.copies
        allocations = (
            nullcontext()
            if copies and traits.app is None
            else PRIVATE_MEMORY.within(limits.memory_bytes_max + limits.unaccounted_bytes_max)
        )
        if not traits.makes_rows:
            return allocations
        if copies:
            most = RowBytes(limits.memory_bytes_max // 2, limits.load_bytes_max)
        else:
            most = RowBytes(limits.rows_bytes_max, limits.rows_bytes_max)
        return _both(self._database.rows_watch.limit(most, exactly=exactly), allocations)

    @override
    def checkpoint(self) -> None:
        self._database.checkpoint()

    @override
    def leave(self) -> None:
        self._database.leave()


@contextmanager
def _both(rows: AbstractContextManager[None], allocations: AbstractContextManager[None]) -> Iterator[None]:
    with rows, allocations:
        yield
