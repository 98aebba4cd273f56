"""The gate for watched queries: what follows from the version alone passes, nothing that differs between runs does."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import pytest

from teatree.contracts.errors import Code, RequestError
from teatree.engine.duckdb.guard.guard import check_query
from teatree.engine.duckdb.guard.live import TablesRead, check_live, unstable_functions
from teatree.engine.duckdb.guard.tree import UserTables

STABLE = """
SELECT a FROM t
SELECT * FROM t ORDER BY a LIMIT 10
SELECT a, row_number() OVER (PARTITION BY b ORDER BY a) FROM t
SELECT a, sum(a) OVER (PARTITION BY b), count(*) OVER () FROM t
SELECT DISTINCT ON (b) a, b FROM t ORDER BY b, a
SELECT DISTINCT b FROM t
SELECT b, string_agg(a, ',' ORDER BY a), json_group_object(a, b), max(a) FROM t GROUP BY b
SELECT age(date '2020-01-01', date '2021-01-01'), date_trunc('month', date '2020-01-05')
SELECT t.current_date FROM (SELECT 1 AS "current_date") t
SELECT error('x') FROM t WHERE false
SELECT a AS now, b AS random FROM t
""".strip().splitlines()
UNSTABLE = """
SELECT random() FROM t
SELECT a FROM t WHERE uuid() IS NOT NULL
SELECT now()
SELECT NOW() - INTERVAL 1 DAY
SELECT current_date
SELECT (SELECT max(a) FROM t WHERE a > epoch(Current_Timestamp))
SELECT localtimestamp
SELECT today()
SELECT ago(INTERVAL 1 DAY)
SELECT age(date '2020-01-01')
SELECT current_localtimestamp()
SELECT current_database()
SELECT current_catalog
SELECT reservoir_quantile(a, 0.5) FROM t
SELECT a FROM t LIMIT 3
SELECT a FROM t LIMIT 10%
SELECT a FROM t OFFSET 3
(SELECT a FROM t) UNION ALL (SELECT a FROM u) LIMIT 1
WITH x AS (SELECT a FROM t LIMIT 1) SELECT * FROM x ORDER BY a
SELECT a FROM t WHERE a IN (SELECT a FROM u LIMIT 1)
SELECT DISTINCT ON (b) a, b FROM t
SELECT * FROM t TABLESAMPLE 10%
SELECT * FROM t USING SAMPLE 5
SELECT * FROM (t JOIN u USING (a)) TABLESAMPLE 10%
SELECT row_number() OVER () FROM t
SELECT lag(a) OVER (PARTITION BY b) FROM t
SELECT sum(a) OVER (ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM t
SELECT a FROM t QUALIFY row_number() OVER (PARTITION BY b) = 1
SELECT list_transform([1], lambda x: x + random())
SELECT a FROM t ORDER BY random() LIMIT 1
""".strip().splitlines()


@pytest.fixture(scope="module")
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    """Return a database with two tables."""
    with duckdb.connect(":memory:") as made:
        made.execute("CREATE TABLE t(a BIGINT, b VARCHAR)")
        made.execute('CREATE TABLE "U"(a BIGINT, c JSON)')
        yield made


def read(con: duckdb.DuckDBPyConnection, sql: str) -> TablesRead:
    """Check a query as a read worker does."""
    tables = UserTables.of(con)
    check_query(sql, con, tables=tables)
    return check_live(sql, con, tables)


@pytest.mark.parametrize("sql", STABLE)
def test_a_stable_query_can_be_watched(con: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Aggregates, ordered limits and ordered windows among them."""
    read(con, sql)


@pytest.mark.parametrize("sql", UNSTABLE)
def test_what_differs_between_runs_is_refused(con: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Wherever it stands in the query, with what to do instead."""
    with pytest.raises(RequestError) as refused:
        read(con, sql)
    assert refused.value.code is Code.SQL_NOT_ALLOWED
    assert "watched" in refused.value.message
    assert refused.value.hint


@pytest.mark.parametrize(
    ("sql", "names", "references"),
    [
        ("SELECT 1", set(), 0),
        ("SELECT a FROM T", {"t"}, 1),
        ("SELECT a FROM t WHERE a IN (SELECT a FROM u)", {"t", "u"}, 2),
        ("SELECT x.a FROM t x, main.t y", {"t"}, 2),
        ("WITH t AS (SELECT a FROM u) SELECT * FROM t", {"u"}, 1),
        ("WITH q AS (SELECT a FROM u) SELECT (SELECT count(*) FROM q), a FROM q, memory.main.t", {"t", "u"}, 2),
        ("WITH t AS (SELECT a FROM t) SELECT * FROM main.t, t", {"t"}, 2),
        ("DESCRIBE t", {"t"}, 1),
        ("PIVOT t ON a IN (1, 2) USING sum(a) GROUP BY b", {"t"}, 1),
    ],
)
def test_the_tables_that_a_query_reads(
    con: duckdb.DuckDBPyConnection, sql: str, names: set[str], references: int
) -> None:
    """By folded name, wherever they stand; names in WITH are none."""
    assert read(con, sql) == TablesRead(frozenset(names), references)


def test_each_function_that_duckdb_calls_unstable_is_refused(con: duckdb.DuckDBPyConnection) -> None:
    """Those of the installed release, whatever they are: by DuckDB's own list."""
    marked = con.execute(
        "SELECT DISTINCT function_name FROM duckdb_functions() WHERE stability <> 'CONSISTENT'"
    ).fetchall()
    assert {name for (name,) in marked} - {"error"} <= unstable_functions()
    assert not {"sum", "count", "histogram", "json_group_object", "list_sum"} & unstable_functions()
