"""Read access of functions to one version: guarded queries through a connection on which nothing else runs."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, TypeVar

import duckdb
from typing_extensions import override

from teatree.contracts.names import fold
from teatree.contracts.settings import LimitSettings
from teatree.contracts.types.table_info import TableInfo
from teatree.datasets.catalog_tables import read_tables
from teatree.datasets.dataset import Dataset
from teatree.engine.duckdb.guard.tree import UserTables
from teatree.engine.duckdb.guard.verdicts import Verdicts
from teatree.engine.duckdb.handle import fetch_dataset, shown_rows
from teatree.functions.handles import NO_ROWS, NamedRows, Parameters, SqlReadAccess

if TYPE_CHECKING:
    import pyarrow as pa


T = TypeVar("T")


class Run(Protocol):
    """Runs a read of a version."""

    def __call__(self, work: Callable[[], T]) -> T:
        """Return what `work` returns; raises Teatree errors instead of DuckDB's."""


class VersionAccess(SqlReadAccess):
    """Reads one version, whose tables never change."""

    def __init__(
        self,
        con: duckdb.DuckDBPyConnection,
        limits: LimitSettings,
        run: Run,
    ) -> None:
        """Read the current database of `con`; `run` runs each read, and explains its errors."""
        self._con = con
        self._limits = limits
        self._run = run

    @cached_property
    def _tables(self) -> dict[str, TableInfo]:
        return self._run(lambda: {fold(info.name): info for info in read_tables(self._con)})

    @cached_property
    def _verdicts(self) -> Verdicts:
        return Verdicts(self._con, UserTables.of(self._con))

    @override
    def tables(self) -> tuple[str, ...]:
        return tuple(sorted(info.name for info in self._tables.values()))

    @override
    def find_table(self, name: str) -> TableInfo | None:
        return self._tables.get(fold(name))

    @override
    def query(self, sql: str, parameters: Parameters) -> pa.Table:
        return self.dataset(sql, parameters).to_arrow()

    @override
    def dataset(self, sql: str, parameters: Parameters, rows: NamedRows = NO_ROWS) -> Dataset:
        return self._run(lambda: self._read(sql, parameters, rows))

    def _read(self, sql: str, parameters: Parameters, rows: NamedRows) -> Dataset:
        self._verdicts.query(sql, rows)
        with shown_rows(self._con, rows):
            return fetch_dataset(self._con, sql, parameters, self._limits)
