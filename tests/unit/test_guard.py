"""The gate for SQL: what users need passes, and nothing that passes reaches beyond the user's tables."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bounded import BoundedConnection
from teatree.contracts.errors import Code, RequestError
from teatree.engine.duckdb.guard.guard import SQL_BYTES_MAX, StatementKind, check_query, check_statement, lock_down

SECRET = "the-secret-of-the-file"

QUERIES = """
SELECT a FROM t
FROM t
FROM t SELECT a WHERE a = 1;
VALUES (1), (2)
TABLE t
(SELECT 1) UNION ALL (SELECT 2) ORDER BY 1 LIMIT 5 OFFSET 1 -- the end
WITH x AS (SELECT 1), y AS NOT MATERIALIZED (FROM x) SELECT * FROM y
WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 5) FROM r
WITH RECURSIVE r AS (WITH q AS (SELECT 1 a) FROM q UNION ALL (WITH s AS (FROM r) SELECT a + 1 FROM s, q WHERE a < 3)) \
FROM r
WITH "Q x" AS MATERIALIZED (SELECT 1 a) SELECT (SELECT a FROM "q X"), l.a FROM t, LATERAL (FROM "Q X") l \
ORDER BY (FROM "q x")
WITH q AS (SELECT 1 a) SELECT (WITH q AS (SELECT 2 a) SELECT a FROM q), a FROM q \
UNION ALL (WITH r AS (FROM q) FROM r, q)
WITH pg_settings AS (SELECT 1 a), duckdb_tables AS (FROM pg_settings) SELECT * FROM PG_SETTINGS, "DuckDB_Tables"
WITH t AS (SELECT a + 1 AS a FROM t) FROM t
WITH q AS (SELECT 1 a) FROM (DESCRIBE q)
DESCRIBE t
SUMMARIZE SELECT a FROM t
SELECT DISTINCT ON (a) a FROM main.t ORDER BY a DESC NULLS LAST LIMIT 10%
SELECT * FROM "T" AS s(x, y), LATERAL (SELECT s.x + 1 AS z), unnest([1, 2]) q(k), range(5) r, generate_series(1, 3) g
SELECT count(*) FILTER (WHERE a > 1), string_agg(b, ',' ORDER BY a) FROM t GROUP BY ALL HAVING count(*) > 1
SELECT a, row_number() OVER (PARTITION BY b ORDER BY a ROWS BETWEEN 1 PRECEDING AND CURRENT ROW), lag(a) OVER w \
FROM t WINDOW w AS (ORDER BY a) QUALIFY row_number() OVER (ORDER BY a) = 1
SELECT (SELECT max(a) FROM t), EXISTS (FROM u), a IN (SELECT a FROM u), a > ALL (SELECT a FROM u) FROM t
SELECT CASE WHEN a = 1 THEN 'x' END, coalesce(a, 1), b LIKE 'x%', a::VARCHAR, try_cast(b AS INTEGER), -a, b[1:2] FROM t
SELECT {'a': 1, 'b': [1]}, MAP {'a': 1}, [x + 1 FOR x IN [1, 2] IF x > 1], list_transform([1], lambda x: x + 1)
SELECT t.*, u.c FROM t JOIN u USING (a) LEFT JOIN u v ON t.a = v.a ASOF JOIN u w ON t.a >= w.a
SELECT columns(c -> c LIKE 'a%'), * EXCLUDE (a), * REPLACE (a + 1 AS a) FROM t
SELECT a, sum(a) FROM t GROUP BY GROUPING SETS ((a), ()), ROLLUP (a)
SELECT a FROM t UNION BY NAME SELECT a FROM u EXCEPT SELECT 3
PIVOT t ON a IN (1, 2) USING sum(a) GROUP BY b
SELECT * FROM t UNPIVOT (v FOR n IN (a))
SELECT * FROM t TABLESAMPLE 10%
SELECT date '2020-01-01', INTERVAL 1 DAY, extract(year FROM now()), current_date, c->>'a', c->'b' FROM u
SELECT * FROM json_each('{"a": 1}')
SELECT a FROM t WHERE a = ? AND b = ?
SELECT a FROM t WHERE a = $1 AND b = $2
SELECT a FROM t WHERE a = $name
SELECT $$it's$$, e'a\\n', 'x''y', "a" FROM t /* a comment */
SELECT b.upper(), pg_typeof(a), uuid(), random() FROM t
SELECT "x.csv".a FROM t AS "x.csv"
FROM (FROM t SELECT a)
""".strip().splitlines()

CHANGES = """
INSERT INTO t VALUES (1, 'x')
INSERT INTO t(a) VALUES (?), (?);
INSERT INTO main.t (b, a) SELECT 'x', a FROM u RETURNING a, b
INSERT INTO t BY NAME SELECT 1 AS a -- the end
INSERT OR REPLACE INTO t VALUES (1, 'x')
INSERT INTO t AS z VALUES (1, 'x') ON CONFLICT (a) DO UPDATE SET b = excluded.b WHERE z.a > 0
INSERT INTO t VALUES (1, 'x') ON CONFLICT DO NOTHING; -- the end
INSERT INTO t DEFAULT VALUES
WITH s AS (SELECT 1 a) INSERT INTO t(a) SELECT a FROM s
INSERT INTO t SELECT a, string_agg(c, ',' ORDER BY c) OVER (PARTITION BY a) FROM u
UPDATE t SET b = 'x', a = a + 1 WHERE a = $a RETURNING *
UPDATE t AS z SET b = u.c FROM u WHERE u.a = z.a
UPDATE t SET b = (SELECT max(c) FROM u) WHERE a IN (SELECT a FROM u)
WITH s AS (SELECT 1 a) UPDATE t SET b = DEFAULT FROM s WHERE s.a = t.a
DELETE FROM t
DELETE FROM t AS z USING u, (SELECT 1 q) w WHERE z.a = u.a AND w.q = 1 RETURNING a
TRUNCATE t
WITH pg_settings AS (SELECT 1 a) INSERT INTO t(a) WITH u AS (FROM pg_settings) SELECT u.a FROM u, pg_settings
MERGE INTO main.t a USING u b ON a.a = b.a WHEN MATCHED THEN UPDATE SET b = b.c \
WHEN NOT MATCHED THEN INSERT VALUES (b.a, b.c)
MERGE INTO "T" "An alias" USING u ON "an ALIAS".a = u.a WHEN MATCHED THEN DELETE
MERGE INTO t USING u ON t.a = u.a WHEN MATCHED THEN UPDATE SET b = u.c WHEN NOT MATCHED THEN INSERT VALUES (u.a, u.c)
MERGE INTO t AS x USING (SELECT 1 AS a, 'z' AS b) s USING (a) WHEN MATCHED AND s.b = 'z' THEN DELETE \
WHEN NOT MATCHED BY TARGET THEN INSERT (a, b) VALUES (s.a, s.b) WHEN NOT MATCHED BY SOURCE AND x.a > 5 THEN DO NOTHING
WITH s AS (SELECT 1 AS a, 'z' AS b) MERGE INTO t USING s ON t.a = s.a WHEN MATCHED THEN UPDATE \
WHEN NOT MATCHED THEN INSERT
MERGE INTO t USING u ON t.a = CASE WHEN u.a = 1 THEN 2 ELSE 3 END \
WHEN MATCHED AND u.a = $1 THEN UPDATE SET b = CASE WHEN true THEN $2 END \
WHEN NOT MATCHED THEN ERROR 'no ' || u.c RETURNING *
""".strip().splitlines()

# What must never pass, in any position: FILE is a file with a secret, DATABASE the database's file.
TABLES_REFUSED = """
'FILE'
"FILE"
'DATABASE'
_teatree.log
"_TEATREE"."log"
model._teatree.log
"_teatree".main.log
information_schema.tables
pg_catalog.pg_class
memory.main.x
temp.x
duckdb_settings
sqlite_master
duckdb_settings()
duckdb_secrets()
read_csv('FILE')
read_text('FILE')
read_blob('DATABASE')
read_duckdb('DATABASE')
read_parquet(['FILE'])
parquet_metadata('FILE')
glob('*')
sniff_csv('FILE')
query('FROM _teat' || 'ree.log')
query_table('FILE')
json_execute_serialized_sql(json_serialize_sql('SELECT 1'))
pragma_table_info('t')
duckdb_tables()
checkpoint()
force_checkpoint()
enable_logging()
which_secret('x', 'y')
summary(TABLE t)
test_all_types()
system.main.range(3), read_text('FILE')
(SHOW TABLES)
(SHOW ALL TABLES)
(FROM 'FILE')
(WITH "FILE" AS (SELECT 1) SELECT 1) x, 'FILE'
(SELECT * FROM t WHERE EXISTS (FROM 'FILE'))
(WITH x AS (COPY t TO 'OTHER') SELECT 1)
(WITH x AS (INSERT INTO t VALUES (9, 'x') RETURNING a) FROM x)
(WITH x AS (DELETE FROM t RETURNING a) FROM x)
missing
main.duckdb_settings
(WITH pg_settings AS (SELECT 1 a) SELECT (SELECT a FROM pg_settings)) x, pg_settings
pg_settings, LATERAL (WITH pg_settings AS (SELECT 1 a) FROM pg_settings)
(WITH pg_settings AS (FROM pg_settings) FROM pg_settings)
(WITH RECURSIVE pg_settings AS (SELECT name FROM pg_settings) FROM pg_settings)
(WITH RECURSIVE pg_settings AS (SELECT name FROM pg_settings UNION FROM pg_settings) FROM pg_settings)
(WITH RECURSIVE r AS (SELECT 1 UNION (WITH pg_settings AS (FROM r) FROM pg_settings)), q AS (FROM pg_settings) FROM q)
(WITH q AS (FROM pg_settings), pg_settings AS (SELECT 1) FROM q)
(WITH pg_settings AS (SELECT 1) FROM system.main.pg_settings)
(WITH pg_settings AS (SELECT 1) FROM main.pg_settings)
(WITH pg_settings AS (SELECT 1) FROM pg_catalog."PG_SETTINGS")
(WITH "du\u212adb_tables" AS (SELECT 1) FROM duckdb_tables)
((WITH pg_settings AS (SELECT 1) FROM pg_settings) UNION ALL FROM pg_settings)
(SELECT 1 AS a) pg_settings, (SELECT count(*) FROM pg_settings)
(DESCRIBE duckdb_tables)
(SUMMARIZE pg_settings)
""".strip().splitlines()

EXPRESSIONS_REFUSED = """
current_setting('threads')
system.main.current_setting('threads')
"CURRENT_SETTING"('threads')
'threads'.current_setting()
getenv('HOME')
getvariable('x')
nextval('s')
setseed(0.5)
sleep_ms(1)
pg_sleep(1)
write_log('x')
json_serialize_plan('SELECT 1')
list_transform([1], lambda x: current_setting('threads'))
format_type(1, 2)
(SELECT content FROM read_text('FILE'))
(WITH pg_settings AS (SELECT 1 a) SELECT a FROM pg_settings) + (SELECT count(*) FROM pg_settings)
EXISTS (FROM _teatree.log)
""".strip().splitlines()

STATEMENTS_REFUSED = """
WITH duckdb_tables AS (SELECT 1) INSERT INTO t SELECT 1, 'x' FROM main.duckdb_tables
WITH q AS (WITH duckdb_tables AS (SELECT 1) FROM duckdb_tables) UPDATE t SET b = 'x' FROM duckdb_tables
DELETE FROM t USING (WITH duckdb_tables AS (SELECT 1) FROM duckdb_tables), duckdb_tables
WITH pg_settings AS (SELECT 1) DELETE FROM pg_settings
MERGE INTO t a USING (WITH pg_settings AS (SELECT 1) FROM pg_settings) b ON EXISTS (FROM pg_settings) \
WHEN MATCHED THEN DELETE
MERGE INTO pg_settings a USING t ON true WHEN MATCHED THEN DELETE
COPY t TO 'OTHER'
COPY t FROM 'FILE'
COPY (SELECT 1) TO 'DATABASE'
ATTACH 'OTHER' AS x
DETACH model
USE memory
INSTALL httpfs
LOAD httpfs
SET threads = 1
RESET threads
SET VARIABLE x = 1
PRAGMA database_list
PRAGMA threads = 1
CALL pragma_version()
CHECKPOINT
FORCE CHECKPOINT
VACUUM
ANALYZE
EXPLAIN SELECT 1
EXPLAIN ANALYZE DELETE FROM t
BEGIN
COMMIT
ROLLBACK
CREATE TABLE x (a INTEGER)
CREATE OR REPLACE TABLE t AS SELECT 1
CREATE MACRO m() AS TABLE FROM 'FILE'
CREATE SECRET x (TYPE s3)
DROP TABLE t
ALTER TABLE t ADD COLUMN z INTEGER
EXPORT DATABASE 'OTHER'
IMPORT DATABASE 'OTHER'
PREPARE p AS SELECT 1
EXECUTE p
DEALLOCATE p
COMMENT ON TABLE t IS 'x'
PIVOT t ON b USING sum(a)
SELECT 1; SELECT 2
SELECT 1; COPY t TO 'OTHER'
SELECT 1 /* ; */; DROP TABLE t
INSERT INTO t VALUES (1, 'x'); DROP TABLE t
WITH x AS (COPY t TO 'OTHER') SELECT 1
WITH x AS (COPY t TO 'DATABASE') SELECT 1
WITH x AS (COPY t TO 'OTHER') INSERT INTO t SELECT 1, 'x'
INSERT INTO _teatree.log VALUES (1)
INSERT INTO "_TeaTree"."log" VALUES (1)
UPDATE _teatree.log SET x = 5
DELETE FROM model._teatree.log
TRUNCATE _teatree.log
MERGE INTO _teatree.log USING t ON x = a WHEN MATCHED THEN DELETE
INSERT INTO missing VALUES (1)
INSERT INTO memory.main.t VALUES (1)
MERGE INTO t USING u ON /* c */ t.a = u.a WHEN MATCHED THEN DELETE
""".strip().splitlines()

BROKEN = [
    "",
    " ",
    ";",
    "--",
    "/*",
    "SELECT 'x",
    'SELECT "x',
    "SELECT $$x",
    "SELEC 1",
    "SELECT \x00 1",
    "SELECT '\ud800'",
    "SELECT " + "(" * 5000,
    "WITH a AS (" * 30,
    "SELECT " + "[" * 5000,
    "SELECT * FROM (" * 3000 + "SELECT 1" + ")" * 3000,
    "SELECT 1" + " + 1" * 20000,
    "SELECT '" + "x" * SQL_BYTES_MAX + "'",
]


class _GuardedModel:
    """A model's database as the manager opens it, and files that no SQL may read or write."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "secret.csv"
        self.file.write_text(f"a,b\n1,{SECRET}\n")
        self.database = folder / "model.duckdb"
        self.folder = folder
        self.bounded = BoundedConnection()
        self.con = self.bounded.con
        self.con.execute(f"ATTACH '{self.database}' AS model").fetchall()
        self.con.execute("USE model").fetchall()
        self.con.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b VARCHAR)").fetchall()
        self.con.execute("CREATE TABLE u (a INTEGER, c VARCHAR)").fetchall()
        self.con.execute("INSERT INTO t VALUES (1, 'x'), (2, NULL)").fetchall()
        self.con.execute("CREATE SCHEMA _teatree; CREATE TABLE _teatree.log AS SELECT 8714302 AS x").fetchall()
        self.con.execute("CHECKPOINT").fetchall()
        lock_down(self.con)
        self.before = self.state()

    def state(self) -> tuple[Any, ...]:
        """Return everything that no statement may change."""
        return (
            self.con.execute("FROM _teatree.log").fetchall(),
            self.con.execute("SELECT name, value FROM duckdb_settings() ORDER BY name").fetchall(),
            self.con.execute(
                "SELECT database_name, schema_name, table_name FROM duckdb_tables() ORDER BY ALL"
            ).fetchall(),
            self.con.execute("SELECT database_name FROM duckdb_databases() ORDER BY ALL").fetchall(),
            sorted(path.name for path in self.folder.iterdir() if path.suffix != ".wal"),
            self.file.read_text(),
            self.database.stat().st_size,
        )

    def named(self, sql: str) -> str:
        other = self.folder / "other.csv"
        return sql.replace("FILE", str(self.file)).replace("OTHER", str(other)).replace("DATABASE", str(self.database))

    def run_if_allowed(self, sql: str) -> bool:
        """Run a statement if the gate allows it, and check for damage."""
        checks = (check_query, check_statement)
        allowed = False
        for check in checks:
            try:
                check(sql, self.con)
            except RequestError as e:
                assert e.code in (Code.BAD_SQL, Code.SQL_NOT_ALLOWED, Code.UNKNOWN_TABLE), e  # noqa: PT017 - the point
                continue
            allowed = True
            self.con.execute("BEGIN").fetchall()
            try:
                rows = self.bounded.rows(sql)
            except duckdb.Error:
                rows = []
            self.con.execute("ROLLBACK").fetchall()
            assert SECRET not in repr(rows)
            assert "8714302" not in repr(rows)
        assert not allowed or self.state() == self.before
        return allowed


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_GuardedModel]:
    """One model for all tests: none of them may change it."""
    model = _GuardedModel(tmp_path_factory.mktemp("model"))
    with model.bounded:
        yield model


@pytest.mark.parametrize("sql", QUERIES)
def test_queries_pass(model: _GuardedModel, sql: str) -> None:
    """A SELECT as analysts write it passes as a query, and not as a change."""
    check_query(sql, model.con)
    with pytest.raises(RequestError) as caught:
        check_statement(sql, model.con)
    assert caught.value.code == Code.SQL_NOT_ALLOWED


@pytest.mark.parametrize("sql", CHANGES)
def test_changes_pass(model: _GuardedModel, sql: str) -> None:
    """An INSERT, UPDATE, DELETE or MERGE passes as a change of its table, and not as a query."""
    statement = check_statement(sql, model.con)
    assert statement.table == "t"
    words = sql.upper().replace("TRUNCATE", "DELETE").split()
    assert statement.kind == StatementKind(next(w for w in words if w.lower() in set(StatementKind)).lower())
    with pytest.raises(RequestError) as caught:
        check_query(sql, model.con)
    assert caught.value.code == Code.SQL_NOT_ALLOWED


def refused(model: _GuardedModel, sql: str, *codes: Code) -> None:
    """Check that neither gate opens, and that the refusal has a code and a sentence."""
    sql = model.named(sql)
    for check in (check_query, check_statement):
        with pytest.raises(RequestError) as caught:
            check(sql, model.con)
        assert caught.value.code in codes, caught.value
        assert caught.value.where


REFUSALS = (Code.SQL_NOT_ALLOWED, Code.UNKNOWN_TABLE, Code.BAD_SQL)


@pytest.mark.parametrize("table", TABLES_REFUSED)
def test_foreign_tables_are_refused(model: _GuardedModel, table: str) -> None:
    """No file, no internal or system table, and no function that reads them is allowed where a table can be."""
    for sql in (
        f"SELECT * FROM {table}",
        f"FROM t, {table}",
        f"SELECT * FROM t JOIN {table} ON true",
        f"WITH x AS (SELECT * FROM {table}) SELECT 1",
        f"SELECT (SELECT count(*) FROM {table})",
        f"SELECT 1 UNION ALL SELECT 1 FROM {table}",
        f"SELECT 1 ORDER BY (SELECT count(*) FROM {table}) LIMIT 1",
        f"SELECT 1 LIMIT (SELECT count(*) FROM {table})",
        f"SELECT sum(a) OVER (ORDER BY (SELECT count(*) FROM {table})) FROM t",
        f"SUMMARIZE SELECT * FROM {table}",
        f"INSERT INTO t SELECT * FROM {table}",
        f"INSERT INTO t VALUES ((SELECT count(*) FROM {table}), 'x')",
        f"INSERT INTO t VALUES (1, 'x') ON CONFLICT (a) DO UPDATE SET b = (SELECT 'x' FROM {table})",
        f"INSERT INTO t VALUES (1, 'x') RETURNING (SELECT count(*) FROM {table})",
        f"UPDATE t SET b = 'x' FROM {table}",
        f"UPDATE t SET b = (SELECT 'x' FROM {table})",
        f"DELETE FROM t USING {table}",
        f"DELETE FROM t WHERE EXISTS (SELECT 1 FROM {table})",
        f"MERGE INTO t USING {table} ON true WHEN MATCHED THEN DELETE",
        f"MERGE INTO t USING u ON EXISTS (FROM {table}) WHEN MATCHED THEN DELETE",
        f"MERGE INTO t USING u ON true WHEN MATCHED AND EXISTS (FROM {table}) THEN DELETE",
        f"MERGE INTO t USING u ON true WHEN MATCHED THEN UPDATE SET b = (SELECT 'x' FROM {table})",
        f"MERGE INTO t USING u ON true WHEN NOT MATCHED THEN INSERT VALUES (1, (SELECT 'x' FROM {table}))",
        f"MERGE INTO t USING u ON true WHEN NOT MATCHED THEN ERROR (SELECT 'x' FROM {table})",
        f"MERGE INTO t USING u ON true WHEN MATCHED THEN DELETE RETURNING (SELECT count(*) FROM {table})",
        f"WITH x AS (SELECT * FROM {table}) MERGE INTO t USING x ON true WHEN MATCHED THEN DELETE",
    ):
        refused(model, sql, *REFUSALS)


@pytest.mark.parametrize("expression", EXPRESSIONS_REFUSED)
def test_foreign_functions_are_refused(model: _GuardedModel, expression: str) -> None:
    """No function that reads settings, files or other SQL, or keeps state, is allowed where an expression can be."""
    for sql in (
        f"SELECT {expression}",
        f"SELECT 1 FROM t WHERE {expression} IS NULL GROUP BY a HAVING {expression} IS NULL",
        f"SELECT sum(a) FILTER (WHERE {expression} IS NULL) FROM t",
        f"SELECT * FROM range({expression})",
        f"VALUES ({expression})",
        f"INSERT INTO t VALUES (1, {expression})",
        f"UPDATE t SET b = {expression}",
        f"DELETE FROM t WHERE {expression} IS NULL",
        f"MERGE INTO t USING u ON {expression} IS NULL WHEN MATCHED THEN DELETE",
        f"MERGE INTO t USING u ON true WHEN MATCHED THEN UPDATE SET b = {expression}",
    ):
        refused(model, sql, *REFUSALS)


@pytest.mark.parametrize("sql", STATEMENTS_REFUSED)
def test_foreign_statements_are_refused(model: _GuardedModel, sql: str) -> None:
    """Only one statement of the allowed kinds passes, in any disguise."""
    for text in (sql, sql.lower().replace("file", "FILE"), f"/* x */ {sql} -- y", f"\n\t{sql};", f"-- x\n{sql}"):
        if not text.lower().startswith("insert into t values (1, 'x'); drop"):
            refused(model, text, *REFUSALS)


@pytest.mark.parametrize("sql", BROKEN)
def test_broken_sql_is_refused(model: _GuardedModel, sql: str) -> None:
    """Invalid, too long or too deep SQL is refused in a sentence."""
    refused(model, sql, *REFUSALS)


def test_a_refusal_names_the_place(model: _GuardedModel) -> None:
    """A refusal names the function or table and its place."""
    with pytest.raises(RequestError, match=r"'read_text' is not allowed, at character 15") as caught:
        check_query("SELECT * FROM read_text('x')", model.con)
    assert caught.value.where == "sql"


SEEDS = [*QUERIES, *CHANGES, *STATEMENTS_REFUSED, *(f"SELECT * FROM {table}" for table in TABLES_REFUSED)]
PIECES = [*sorted({word for sql in SEEDS for word in sql.split()}), "/* x */", "-- x\n", ";", "$$", "'", '"', "(", ")"]


@st.composite
def mutations(draw: st.DrawFn) -> str:
    """Return a statement with words exchanged, dropped, put in, joined with others, or written in another case."""
    words = draw(st.sampled_from(SEEDS)).split()
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(words)))
        new = draw(st.one_of(st.sampled_from(PIECES), st.sampled_from(SEEDS).map(lambda sql: f"({sql})")))
        words[place : place + draw(st.integers(0, 2))] = [new]
    separator = draw(st.sampled_from([" ", "\n", " /* x */ ", "\t"]))
    sql = separator.join(words)
    cases: list[Callable[[str], str]] = [str, str.upper, str.lower, str.swapcase]
    return draw(st.sampled_from(cases))(sql) if draw(st.booleans()) else sql


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sql=mutations())
def test_what_passes_does_no_harm(model: _GuardedModel, sql: str) -> None:
    """Whatever the gate lets through reads no file, changes no setting and does not change the internal schema."""
    model.run_if_allowed(model.named(sql))


VIEWS = ("pg_settings", "duckdb_tables", "duckdb_settings", "sqlite_master", "pragma_database_list")
OURS = {"a", "b", "x", "NULL", "NUL", "NU", "N", "None"}
"""Words in the rows of tables and WITH names; their texts are cut after 40 characters."""


def spellings(name: str) -> list[str]:
    """Return spellings of a name, which DuckDB may or may not consider equal."""
    odd = name.replace("k", "\u212a").replace("s", "\u017f")
    return [name, name, name, name.upper(), f'"{name.title()}"', f'"{odd}"', f"main.{name}", f"system.main.{name}"]


@st.composite
def scoped_queries(draw: st.DrawFn, names: tuple[str, ...], depth: int = 2, known: tuple[str, ...] = ()) -> str:
    """Return a query of one column `a`, with WITH names that are shadowed, recursive, in scope (`known`) or out of it.

    Most names are in scope: a query with one that is not is refused, whatever else it holds.
    """
    known_here = known

    def name() -> str:
        if draw(st.integers(0, 15)):
            return draw(st.sampled_from(known_here or ("t",)))
        return draw(st.sampled_from(spellings(draw(st.sampled_from(names)))))

    def inner(*more: str) -> str:
        return draw(scoped_queries(names, depth - 1, (*known_here, *more)))

    def common_table(base: str) -> str:
        nonlocal known_here
        how = draw(st.sampled_from(["", "", "MATERIALIZED ", "NOT MATERIALIZED "]))
        new = f'"{draw(st.sampled_from(spellings(base))).replace(chr(34), "").split(".")[-1]}"'
        mentions.append(f"EXISTS (FROM {new})")
        if draw(st.booleans()):
            made = f"{new} AS {how}({inner()})"
        else:
            again = inner(new) if "RECURSIVE" in before else inner()
            made = f"{new} AS (SELECT a FROM ({inner()}) UNION SELECT left(a, 40) FROM ({again}))"
        known_here = (*known_here, new)
        return made

    if depth == 0:
        seen = f"SELECT n::VARCHAR AS a FROM {name()} n"
        return draw(st.sampled_from(["SELECT '1' AS a", seen, seen]))
    before = ""
    mentions: list[str] = []  # DuckDB ignores unused WITH names
    if draw(st.booleans()):
        before = draw(st.sampled_from(["WITH ", "WITH RECURSIVE "]))
        bases = draw(st.lists(st.sampled_from(names), min_size=1, max_size=2, unique=True))
        before += ", ".join([common_table(base) for base in bases]) + " "
    body = draw(
        st.sampled_from(
            [
                "SELECT n::VARCHAR AS a FROM {name} n",
                "SELECT concat((SELECT max(a) FROM ({query})), n::VARCHAR) AS a FROM {name} n",
                "(SELECT a FROM ({query})) UNION ALL ({query})",
                "SELECT q.a FROM {name} n, LATERAL ({query}) q",
                "SELECT '1' AS a WHERE EXISTS ({query}) ORDER BY (SELECT max(a) FROM ({query}))",
            ]
        )
    )
    while "{query}" in body:
        body = body.replace("{query}", inner(), 1)
    while "{name}" in body:
        body = body.replace("{name}", name(), 1)
    if mentions:
        return f"{before}SELECT a FROM ({body}) WHERE true OR {' OR '.join(mentions)}"
    return body


WRAPPERS = (
    "{}",
    "SUMMARIZE {}",
    "INSERT INTO t SELECT row_number() OVER () + 100, a FROM ({}) RETURNING b",
    "UPDATE t SET b = (SELECT max(a) FROM ({})) RETURNING b",
    "DELETE FROM t WHERE b IS DISTINCT FROM (SELECT max(a) FROM ({})) RETURNING (SELECT 1)",
    "MERGE INTO t z USING (SELECT max(a) a FROM ({})) ON false WHEN NOT MATCHED THEN INSERT VALUES (9, a) RETURNING b",
)


def run_scoped(model: _GuardedModel, sql: str) -> tuple[RequestError | None, duckdb.Error | None, list[Any]]:
    """Return the guard's refusal, and DuckDB's result without the guard."""
    refusal: RequestError | None = None
    try:
        (check_query if sql.startswith(("WITH", "SELECT", "(", "SUMM")) else check_statement)(sql, model.con)
    except RequestError as e:
        refusal = e
    model.con.execute("BEGIN").fetchall()
    try:
        return refusal, None, model.bounded.rows(sql)
    except duckdb.Error as e:
        return refusal, e, []
    finally:
        model.con.execute("ROLLBACK").fetchall()


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(sql=scoped_queries(VIEWS), wrapper=st.sampled_from(WRAPPERS))
def test_a_with_name_opens_no_internal_view(model: _GuardedModel, sql: str, wrapper: str) -> None:
    """However WITH names are nested, shadowed and spelled, what passes shows no row of an internal view."""
    refusal, _, rows = run_scoped(model, wrapper.format(sql))
    if refusal is None and not wrapper.startswith("SUMMARIZE"):
        assert set(re.findall(r"[^\W\d]\w*", repr(rows))) <= OURS
    if refusal is None and wrapper.startswith("SUMMARIZE"):
        assert not {"name", "VIEW", "database_name"} & set(re.findall(r"\w+", repr(rows)))


@settings(max_examples=75, deadline=None, suppress_health_check=list(HealthCheck))
@given(sql=scoped_queries(("ka", "sb", "c")), wrapper=st.sampled_from(WRAPPERS))
def test_with_names_reach_as_far_as_in_duckdb(model: _GuardedModel, sql: str, wrapper: str) -> None:
    """The guard finds a WITH name exactly where DuckDB does."""
    refusal, error, _ = run_scoped(model, wrapper.format(sql))
    if error is None:
        assert refusal is None or refusal.code is Code.BAD_SQL, refusal
    elif refusal is None:
        assert not isinstance(error, duckdb.CatalogException), error


def test_a_refusal_ends_no_transaction(model: _GuardedModel) -> None:
    """A check leaves an open transaction unchanged, whatever its result."""
    model.con.execute("BEGIN").fetchall()
    model.con.execute("INSERT INTO t VALUES (77, 'in the transaction')").fetchall()
    for sql in (*BROKEN, *STATEMENTS_REFUSED, "SELECT 1" + " + 1" * 900, "SELECT * FROM read_text('x')", "FROM t"):
        for check in (check_query, check_statement):
            with contextlib.suppress(RequestError):
                check(model.named(sql), model.con)
    assert model.con.execute("SELECT b FROM t WHERE a = 77").fetchall() == [("in the transaction",)]
    model.con.execute("ROLLBACK").fetchall()


def test_locked_down(model: _GuardedModel) -> None:
    """Without the gate, DuckDB's configuration still denies files and settings."""
    for sql in ("FROM '{0}'", "SET threads = 1", "COPY t TO '{1}'", "INSTALL httpfs", "ATTACH '{1}' AS x"):
        with pytest.raises(duckdb.Error):
            model.con.execute(sql.format(model.file, model.folder / "other.csv")).fetchall()
    assert model.state() == model.before
    frame = pa.table({"a": [1]})
    assert frame.num_rows
    with pytest.raises(duckdb.Error):
        model.con.execute("FROM frame").fetchall()
