"""Statements and queries that are wrong, not allowed, or too much, each between two good requests in one batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from attrs import evolve
from test_bad_input import TABLES, check_sentence

from one_writer import OneWriter, Sent, open_database
from teatree.contracts.formats.notices import Outcome, Status
from teatree.contracts.settings import LimitSettings
from teatree.functions.registry import built_in_functions
from teatree.functions.traits import Function

LIMITS = evolve(
    LimitSettings(),
    query_rows_max=1_000,
    pages_max=20,
    rows_bytes_max=20_000_000,
    memory_bytes_max=100_000_000,
    temp_bytes_max=50_000_000,
)
HURRIED = evolve(LIMITS, query_time_ms_max=300, request_time_ms_max=300)
FOREVER = "SELECT count(*) FROM range(100000000000) a, range(1000000) b WHERE a.range % 7 = b.range % 11"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneWriter]:
    """Return a model of tight limits with a table of every type, and one with a key that holds the row 1."""

    def broken(*_: object) -> None:
        raise TypeError("a bug")

    functions = built_in_functions().extended(Function("broken", broken))
    yield from filled(OneWriter(tmp_path_factory.mktemp("model"), TABLES, LIMITS, functions))


@pytest.fixture(scope="module")
def hurried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneWriter]:
    """Return a model with tight time limits, which a slow machine can exceed with a small statement."""
    yield from filled(OneWriter(tmp_path_factory.mktemp("hurried"), TABLES, HURRIED))


def filled(writer: OneWriter) -> Iterator[OneWriter]:
    """Yield a model with its row, and check that no other row was added."""
    (outcome,) = writer.apply(Sent("append", {"table": "k", "rows": [{"id": 1, "v": "first"}]}))
    assert outcome.status is Status.DONE
    yield writer
    writer.check_good_rows()
    assert writer.rows("SELECT id, v FROM k") == [{"id": 1, "v": "first"}]
    assert writer.rows("SELECT count(*) AS rows FROM t") == [{"rows": 0}]
    writer.close()


def sql(statement: Any, parameters: Any = None) -> Sent:
    """Return a `sql` request."""
    return Sent("sql", {"statement": statement, "parameters": parameters})


def ask(query: Any, parameters: Any = None, **more: Any) -> Sent:
    """Return a `query` request."""
    return Sent("query", {"sql": query, "parameters": parameters, **more})


def raw(parameter: str) -> Sent:
    """Return a statement with a parameter, given as JSON."""
    return Sent("sql", f'{{"statement": "INSERT INTO t(t) VALUES (?)", "parameters": [{parameter}]}}'.encode())


REFUSED_COMMANDS = """
COPY good TO '/tmp/x.csv'
COPY good FROM '/etc/passwd'
ATTACH '/tmp/x.duckdb' AS x
DETACH model
LOAD json
INSTALL httpfs
SET threads = 1
RESET threads
PRAGMA database_list
PRAGMA enable_checkpoint_on_shutdown
CHECKPOINT
FORCE CHECKPOINT
BEGIN
COMMIT
ROLLBACK
CREATE TABLE x(a INTEGER)
CREATE VIEW x AS SELECT 1
CREATE SECRET (TYPE s3)
DROP TABLE good
ALTER TABLE good ADD COLUMN x INTEGER
COMMENT ON TABLE good IS 'x'
EXPORT DATABASE '/tmp/x'
IMPORT DATABASE '/tmp/x'
USE main
CALL pragma_version()
PREPARE p AS SELECT 1
EXECUTE p
DEALLOCATE p
VACUUM
ANALYZE
EXPLAIN INSERT INTO good VALUES (1)
SELECT 1
""".strip().splitlines()
REFUSED_QUERIES = """
SELECT * FROM read_csv('/etc/passwd')
SELECT * FROM read_text('/etc/passwd')
SELECT * FROM read_blob('/etc/*')
SELECT * FROM parquet_scan('s3://bucket/key')
SELECT * FROM '/etc/passwd'
SELECT * FROM 'sales.csv'
SELECT * FROM '*.parquet'
SELECT * FROM 'https://example.org/x.parquet'
SELECT * FROM glob('/**')
SELECT getenv('HOME')
SELECT current_setting('temp_directory')
SELECT * FROM duckdb_settings()
SELECT * FROM duckdb_secrets()
SELECT * FROM information_schema.tables
SELECT * FROM query('SELECT 1')
SELECT * FROM query_table('good')
SHOW TABLES
SHOW DATABASES
WITH x AS (COPY good TO '/tmp/x.csv') SELECT 1
WITH x AS (INSERT INTO good VALUES (1) RETURNING n) FROM x
INSERT INTO good VALUES (1)
SELECT 1; SELECT 2
""".strip().splitlines()
OWN_TABLES = """
{0} _teatree.commits
{0} "_teatree".commits
{0} "_TeaTree"."commits"
{0} model._teatree.commits
{0} "model"."_teatree"."commits"
{0} _teatree.model
{0} _teatree_rows
""".strip().splitlines()
REFUSED = [
    *[(sql(command), "sql_not_allowed", "not allowed", "statement") for command in REFUSED_COMMANDS],
    *[(ask(query), "sql_not_allowed", "", "sql") for query in REFUSED_QUERIES],
    *[(ask(table.format("FROM")), "sql_not_allowed", "belongs to Teatree", "sql") for table in OWN_TABLES],
    *[(sql(t.format("DELETE FROM")), "sql_not_allowed", "belongs to Teatree", "statement") for t in OWN_TABLES],
    (sql("INSERT INTO good SELECT version FROM _teatree.commits"), "sql_not_allowed", "belongs", "statement"),
    (sql("INSERT INTO good SELECT n FROM read_csv('/etc/passwd')"), "sql_not_allowed", "'read_csv'", "statement"),
    (sql("INSERT INTO good SELECT length(getenv('HOME'))"), "sql_not_allowed", "'getenv'", "statement"),
    (sql("DELETE FROM good; COMMIT"), "sql_not_allowed", "There are 2 statements", "statement"),
    (sql("DELETE FROM good; DELETE FROM k"), "sql_not_allowed", "There are 2 statements", "statement"),
]
WRONG = [
    (sql(""), "bad_sql", "There is no SQL", "statement"),
    (sql(None), "missing_argument", "needs the argument 'statement'", "statement"),
    (sql(1), "bad_argument", "must be a text", "statement"),
    (sql("INSERT INTO"), "bad_sql", "yntax error", "statement"),
    (sql("INSERT INTO good SELECT '\0'"), "bad_sql", "holds a NUL", "statement"),
    (sql("INSERT INTO good SELECT '\ud800'"), "bad_sql", "half a surrogate pair", "statement"),
    (sql("INSERT INTO good SELECT " + "(" * 5_000 + "1" + ")" * 5_000), "bad_sql", "200 deep", "statement"),
    (sql("INSERT INTO good SELECT 1" + " + 1" * 5_000), "bad_sql", "nested too deeply", "statement"),
    (sql("INSERT INTO good SELECT 1 -- " + "x" * 300_000), "bad_sql", "the limit is 262,144", "statement"),
    (sql("INSERT INTO nope VALUES (1)"), "unknown_table", "There is no table 'nope'", "statement"),
    (sql("INSERT INTO good(q) VALUES (1)"), "bad_sql", 'column with name "q"', "statement"),
    (sql("INSERT INTO good VALUES (1, 2)"), "bad_sql", "2 values", "statement"),
    (sql("INSERT INTO good VALUES ('x')"), "type_mismatch", "Could not convert string 'x' to BIGINT", "statement"),
    (sql("INSERT INTO t(i) VALUES (99999999999)"), "out_of_range", "99999999999 is out of range", "statement"),
    (sql("INSERT INTO good VALUES (9223372036854775807 + 1)"), "out_of_range", "verflow", "statement"),
    (sql("INSERT INTO good SELECT error('so: wrong')"), "bad_argument", "o: wrong", "statement"),
    (sql("INSERT INTO good SELECT error('Corrupt database file')"), "bad_argument", "Corrupt database", "statement"),
    (ask("SELECT error('Failed to commit: Could not write')"), "bad_argument", "Failed to commit", "sql"),
    (ask("SELECT 'No space left'::INTEGER"), "type_mismatch", "No space left", "sql"),
    (sql("INSERT INTO k VALUES (2, NULL)"), "not_null", "'v' of 'k' does not take null", "statement"),
    (sql("INSERT INTO k VALUES (2, 'a'), (2, 'b')"), "constraint", "or twice in the request", "statement"),
    (sql("INSERT INTO k VALUES (1, 'a')"), "constraint", "'id: 1' is there already", "statement"),
    (sql("UPDATE good SET q = 1"), "bad_sql", "column q", "statement"),
    (sql("INSERT INTO good VALUES (?)"), "bad_argument", "not provided for the following parameters: 1", "parameters"),
    (sql("INSERT INTO good VALUES (?)", [1, 2]), "bad_argument", "Too many parameters: 2", "parameters"),
    (sql("INSERT INTO good VALUES ($a)", {"b": 1}), "bad_argument", "Too many parameters: b", "parameters"),
    (sql("INSERT INTO good VALUES (?)", "x"), "bad_argument", "must be a list or an object", "parameters"),
    (sql("INSERT INTO good VALUES (?)", [[1]]), "bad_argument", "A parameter must be a text", "parameters[0]"),
    (sql("INSERT INTO good VALUES (?)", [1] * 2_000), "out_of_range", "At most 1000 parameters", "parameters"),
    (sql("INSERT INTO good VALUES (?)", ["x"]), "type_mismatch", "Could not convert string 'x'", "statement"),
    (raw("9" * 50), "out_of_range", "out of range", "parameters[0]"),
    (raw("1e400"), "out_of_range", "out of range", "parameters[0]"),
    (raw(r'"\ud800"'), "type_mismatch", "half a surrogate pair", "parameters[0]"),
    (ask("SELECT q FROM good"), "bad_sql", 'column "q" not found', "sql"),
    (ask("FROM nope"), "unknown_table", "There is no table 'nope'", "sql"),
    (ask("SELECT 'x'::INTEGER"), "type_mismatch", "Could not convert", "sql"),
    (ask("SELECT CASE WHEN range = 999 THEN error('late') END FROM range(1000)"), "bad_argument", "ate", "sql"),
    (ask("SELECT 1 AS a, 2 AS a"), "column_exists", "'a' is named twice", "sql"),
    (ask("SELECT union_value(a := 1)"), "type_mismatch", "The result cannot be returned", "sql"),
    (ask("SELECT 1::BIGNUM"), "type_mismatch", "The result cannot be returned", "sql"),
    (ask("SELECT 1", page_size=0), "out_of_range", "'page_size' is 1 to 10000, not 0", "page_size"),
    (ask("SELECT 1", page_size=10**6), "out_of_range", "'page_size' is 1 to 10000", "page_size"),
    (ask("SELECT 1", format="xml"), "bad_argument", "'format' is one of json, arrow", "format"),
    (ask("FROM range(21)", page_size=1), "result_too_large", "has 21 pages; 20 is the most", "page_size"),
    (ask("FROM range(1001)"), "result_too_large", "more than 1,000 rows", "sql"),
    (ask("SELECT repeat('x', 100000) FROM range(500)"), "result_too_large", "more than 20,000,000 bytes", "sql"),
]
TIMED_OUT = [
    (ask(FOREVER), "timed_out", "query ran longer than 300 ms", "sql"),
    (
        ask("WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT max(n) FROM r"),
        "timed_out",
        "300 ms",
        "sql",
    ),
    (sql(f"INSERT INTO good {FOREVER}"), "timed_out", "sql ran longer than 300 ms", "statement"),
]
OVER_LIMIT = [
    (ask("SELECT list(range) FROM range(100000000)"), "over_limit", "needs more memory", "sql"),
    (sql("INSERT INTO good SELECT len(list(range)) FROM range(100000000)"), "over_limit", "more memory", "statement"),
]


@pytest.mark.parametrize(("request_", "code", "part", "where"), [*REFUSED, *WRONG])
def test_bad_sql_is_rejected_with_its_cause_and_place(
    model: OneWriter, request_: Sent, code: str, part: str, where: str
) -> None:
    """A wrong or forbidden statement is rejected with a code and a sentence, and the requests beside it are done."""
    outcome = model.between(request_)
    error = outcome.error or {}
    assert (outcome.status, error.get("code"), error.get("where")) == (Status.REJECTED, code, where), error
    assert part in error["message"]
    check_sentence(error["message"])


@pytest.mark.parametrize(("request_", "code", "part", "where"), TIMED_OUT)
def test_sql_beyond_its_time_fails(hurried: OneWriter, request_: Sent, code: str, part: str, where: str) -> None:
    """A statement over its time limit has failed, not been rejected, and the requests beside it are done."""
    check_failed(hurried.between(request_), code, part, where)


@pytest.mark.parametrize(("request_", "code", "part", "where"), OVER_LIMIT)
def test_sql_beyond_its_limits_fails(model: OneWriter, request_: Sent, code: str, part: str, where: str) -> None:
    """A statement over its memory limit has failed, not been rejected, and the requests beside it are done."""
    check_failed(model.between(request_), code, part, where)


def check_failed(outcome: Outcome, code: str, part: str, where: str) -> None:
    """Check how a statement failed."""
    error = outcome.error or {}
    assert (outcome.status, error.get("code"), error.get("where")) == (Status.FAILED, code, where), error
    assert part in error["message"]
    check_sentence(error["message"])


def test_a_slow_statement_is_not_run_again_for_every_half_of_its_batch(hurried: OneWriter) -> None:
    """In a batch of many requests, a statement over its time limit costs its time once."""
    batch = [Sent("append", {"table": "t", "rows": [{"i": i}]}) for i in range(64)]
    runs = 0
    database = open_database(hurried.writer)
    run = database.time_limit

    def counting(limit_ms: int, what: str, *requests: Any, **options: Any) -> Any:
        nonlocal runs
        runs += what == "sql"
        return run(limit_ms, what, *requests, **options)

    database.time_limit = counting  # type: ignore[method-assign]
    outcomes = hurried.apply(*batch, sql(f"INSERT INTO good {FOREVER}"), *batch)
    assert [o.status for o in outcomes].count(Status.DONE) == 2 * len(batch)
    assert runs == 1
    hurried.apply(Sent("delete", {"table": "t", "where": {}}))


def test_a_bug_ends_one_request(model: OneWriter) -> None:
    """A request that meets a bug fails with `internal`; the requests beside it are done, and the writer continues."""
    outcome = model.between(Sent("broken"))
    assert (outcome.status, (outcome.error or {})["code"]) == (Status.FAILED, "internal")
    assert "TypeError: a bug" in (outcome.error or {})["message"]


def test_every_type_that_a_query_can_return_is_returned(model: OneWriter) -> None:
    """Values at the ends of every type come out of a query as JSON and as Arrow."""
    wide = """SELECT '101'::BIT, 170141183460469231731687303715884105727::HUGEINT, 'infinity'::DATE,
        '-290000-01-01'::DATE, 'infinity'::TIMESTAMP, TIMESTAMP '294247-01-10 04:00:54.775806', INTERVAL 1000000 YEARS,
        '12:00:00+15:59:59'::TIMETZ, TIME_NS '12:00:00.123456789', 'NaN'::DOUBLE, '-inf'::FLOAT, MAP {1: 2}, {'a': [1]},
        NULL::INTEGER[3], '\\xFF'::BLOB, 'a' || chr(0), '{"a": 1e400}'::JSON, NULL, [], uuid(), 'x'::ENUM('x'),
        TIMESTAMP_S '2020-01-01', TIMESTAMPTZ '2020-01-01', 1e37::DECIMAL(38, 0),
        340282366920938463463374607431768211455
    """
    for form in ("json", "arrow"):
        (outcome,) = model.apply(ask(wide, format=form))
        assert outcome.status is Status.DONE, outcome.error
