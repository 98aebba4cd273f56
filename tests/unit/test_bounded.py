"""SQL that tests run unchecked takes little time and memory, whatever it is."""

from __future__ import annotations

import duckdb
import pytest

from bounded import ROWS_MAX, BoundedConnection

ENDLESS = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n FROM r WHERE n < 5) FROM r"


@pytest.mark.parametrize("sql", [f"SELECT count(*) FROM ({ENDLESS})", f"SELECT list(n) FROM ({ENDLESS})"])
def test_an_endless_statement_ends(sql: str) -> None:
    """It is interrupted, or runs out of memory, and the next one runs."""
    with BoundedConnection() as bounded:
        with pytest.raises((duckdb.InterruptException, duckdb.OutOfMemoryException)):
            bounded.rows(sql)
        assert bounded.rows("SELECT 1") == [(1,)]


def test_an_endless_result_is_read_in_part() -> None:
    """Of a result without an end, the first rows are returned, and the next statement runs."""
    with BoundedConnection() as bounded:
        assert bounded.rows(ENDLESS) == [(1,)] * ROWS_MAX
        assert bounded.rows("SELECT 1") == [(1,)]
