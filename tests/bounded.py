"""Runs SQL that nothing has checked: random, or wrong on purpose; what it may take is bounded."""

from __future__ import annotations

from typing import Any, Self

import duckdb

from teatree.engine.duckdb.watchdog import Watchdog

ROWS_MAX = 10_000
"""Rows of a result that are read: DuckDB computes them while they are read, and no limit of its counts Python's."""
TIME_MS_MAX = 1_000
MEMORY = {"memory_limit": "200MB", "max_temp_directory_size": "100MB"}
"""The configuration of a database for such SQL; by default DuckDB takes most of the machine's memory, then its disk."""


class BoundedConnection:
    """A connection to a database in memory whose statements end, with an error if they do not end in time."""

    def __init__(self) -> None:
        self.con = duckdb.connect(config=dict(MEMORY))
        self._watchdog = Watchdog(self.con.interrupt)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._watchdog.close()
        self.con.close()

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Return the first rows of a statement; raises DuckDB's errors."""
        with self._watchdog.limit(TIME_MS_MAX, "The statement"):
            return self.con.execute(sql).fetchmany(ROWS_MAX)
