"""A statement of allowed length takes the guard little time and memory: it runs in the writer's process."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import duckdb
import pytest

from teatree.contracts.errors import Code, RequestError
from teatree.engine.duckdb.guard.guard import check_query, check_statement, lock_down
from teatree.engine.duckdb.guard.merge import PIECES_BYTES_MAX

WHEN = " WHEN MATCHED AND t.b = 1 THEN UPDATE SET b = 2"


@pytest.fixture
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    """Return a connection with two tables."""
    with duckdb.connect() as con:
        con.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b INTEGER); CREATE TABLE u (a INTEGER)").fetchall()
        lock_down(con)
        yield con


def test_many_with_names_take_little_memory(con: duckdb.DuckDBPyConnection) -> None:
    """Memory does not grow by the square of the number of WITH names, each of which is in scope after it."""
    names = 3_000
    chain = ", ".join(f"q{i} AS (FROM q{i - 1})" for i in range(1, names))
    tracemalloc.start()
    try:
        check_query(f"WITH q0 AS (FROM t), {chain} FROM q{names - 1}", con)
        assert tracemalloc.get_traced_memory()[1] < 100_000_000
    finally:
        tracemalloc.stop()


def test_a_merge_with_many_large_pieces_is_refused(con: duckdb.DuckDBPyConnection) -> None:
    """A long WITH is checked again for each WHEN, but not for hundreds of them."""
    common = "WITH q AS (SELECT " + "1, " * 5_000 + "1) "
    assert len(common) * 2 * 100 > PIECES_BYTES_MAX
    with pytest.raises(RequestError, match="too many WHENs") as caught:
        check_statement(f"{common}MERGE INTO t USING u ON t.a = u.a{WHEN * 100}", con)
    assert caught.value.code is Code.BAD_SQL
    check_statement(f"{common}MERGE INTO t USING u ON t.a = u.a{WHEN * 2}", con)


def test_a_merge_with_many_small_pieces_is_refused(con: duckdb.DuckDBPyConnection) -> None:
    """Each WHEN takes time; two hundred of them pass, thousands do not."""
    check_statement(f"MERGE INTO t USING u ON t.a = u.a{WHEN * 200}", con)
    with pytest.raises(RequestError, match="too many WHENs"):
        check_statement(f"MERGE INTO t USING u ON t.a = u.a{WHEN * 5_000}", con)
