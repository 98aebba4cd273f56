"""What the guard accepted, for one state of a database's tables: a text that comes again is not checked again."""

from __future__ import annotations

from collections.abc import Iterable

import duckdb
from blake3 import blake3

from teatree.contracts.errors import Code, RequestError
from teatree.contracts.names import fold
from teatree.engine.duckdb.guard.guard import check_query, check_statement
from teatree.engine.duckdb.guard.tree import UserTables

REMEMBERED_MAX = 10_000
"""Accepted texts kept of each kind: those of a batch run again after a failure, or the statements of an app."""
_QUERY = ""
"""What a query changes: no table has this name."""


class Verdicts:
    """Checks SQL for one connection; rows that are given with a statement count as tables that it may read."""

    def __init__(self, con: duckdb.DuckDBPyConnection, tables: UserTables) -> None:
        self.tables = tables
        self._con = con
        self._targets: dict[bytes, str] = {}
        """The table that each accepted text changes, by its hash."""

    def query(self, sql: str, names: Iterable[str] = ()) -> None:
        """Check one SELECT; raises `bad_sql`, `sql_not_allowed`, `unknown_table`, `bad_name`."""
        self._target(sql, sorted(names), changes=False)

    def change(self, sql: str, names: Iterable[str] = ()) -> str:
        """Check one INSERT, UPDATE, DELETE or MERGE and return the table that it changes; raises the same."""
        return self._target(sql, sorted(names), changes=True)

    def _target(self, sql: str, names: list[str], *, changes: bool) -> str:
        tables = self._with(names) if names else self.tables
        digest = _digest("\0".join((str(changes), str(sql), *names)))
        target = self._targets.get(digest)
        if target is None:
            if changes:
                target = check_statement(sql, self._con, tables=tables).table
            else:
                check_query(sql, self._con, tables=tables)
                target = _QUERY
            if len(self._targets) < REMEMBERED_MAX:
                self._targets[digest] = target
        return target

    def _with(self, names: Iterable[str]) -> UserTables:
        known = dict(self.tables.names)
        for name in names:
            if fold(name) in known:
                raise RequestError(
                    Code.BAD_NAME,
                    f"There is a table {known[fold(name)]!r} already.",
                    where=f"tables.{name}",
                    hint="Give the rows another name.",
                )
            known[fold(name)] = name
        return UserTables(self.tables.catalog, known)


def _digest(text: str) -> bytes:
    return blake3(text.encode("utf-8", "surrogatepass")).digest()
