"""A statement beyond its time, its memory or its rows is interrupted; one that no interrupt reaches is reported."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from attrs import evolve

from one_writer import OneWriter, Sent, arrow, arrow_headers, open_database
from teatree.contracts.errors import Code, RetryError, TeatreeError
from teatree.contracts.formats.notices import Status
from teatree.contracts.own_memory import own_memory
from teatree.contracts.settings import LimitSettings
from teatree.engine.apply.batch import Batch
from teatree.engine.duckdb import rows_watch
from teatree.engine.duckdb.errors import translate
from teatree.engine.duckdb.watchdog import Watchdog
from teatree.engine.errors import InvalidatedError
from teatree.engine.publish.shipping import ship
from teatree.functions.registry import built_in_functions
from teatree.functions.traits import Function

FOR_EVER = "SELECT count(*) FROM range(10000000) a(i), range(10000000) b(j) WHERE hash(i, j) = 7"
UNREACHED = "SELECT levenshtein(repeat('a', 28000), repeat('b', 28000))"
"""About a second in one call of one function."""
WORDS = {"table": "words", "columns": [{"name": "id", "type": "BIGINT"}, {"name": "word", "type": "VARCHAR"}]}
LIMITS = LimitSettings(rows_bytes_max=20_000_000, load_bytes_max=40_000_000)


@pytest.fixture
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    """Return a connection."""
    with duckdb.connect(":memory:") as con:
        yield con


@pytest.fixture
def model(tmp_path: Path) -> Iterator[OneWriter]:
    """Return a model with a table of texts."""
    model = OneWriter(tmp_path, [WORDS], LIMITS)
    yield model
    model.check_good_rows()
    model.close()


def run(con: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Run a statement; raise Teatree's errors instead of DuckDB's."""
    try:
        con.execute(sql).fetchall()
    except duckdb.Error as e:
        raise translate(e) from e


def test_what_an_interrupt_reaches_is_not_reported(con: duckdb.DuckDBPyConnection) -> None:
    """It ends as `timed_out` without a report."""
    reported = threading.Event()
    watchdog = Watchdog(con.interrupt, stuck_ms_max=5_000)
    with pytest.raises(RetryError, match="longer than 100 ms") as e, watchdog.limit(100, "It", on_stuck=reported.set):
        run(con, FOR_EVER)
    watchdog.close()
    assert e.value.code is Code.TIMED_OUT
    assert not reported.is_set()


@pytest.mark.parametrize(
    "sql",
    [
        UNREACHED,
        pytest.param(f"CREATE TABLE t AS {UNREACHED}", marks=pytest.mark.slow),
        pytest.param(f"EXPLAIN {UNREACHED}", marks=pytest.mark.slow),
    ],
)
def test_what_no_interrupt_reaches_is_reported_while_it_runs(con: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Whether it hangs while it is planned or later, it is reported before its end."""
    reported, ended = threading.Event(), threading.Event()
    order: list[bool] = []

    def report() -> None:
        order.append(ended.is_set())
        reported.set()

    watchdog = Watchdog(con.interrupt, stuck_ms_max=100)
    try:
        with watchdog.limit(100, "It", on_stuck=report):
            run(con, sql)
            ended.set()
            assert reported.wait(10)
    except TeatreeError:
        assert reported.is_set()
    watchdog.close()
    assert order[0] is False


def test_a_commit_is_reported_and_never_interrupted() -> None:
    """An interrupt could make a commit that is done look like one that failed."""
    interrupted, reported = threading.Event(), threading.Event()
    watchdog = Watchdog(interrupted.set, stuck_ms_max=100)
    with watchdog.limit(1, "COMMIT", on_stuck=reported.set, may_interrupt=False):
        assert reported.wait(10)
        watchdog.interrupt(RetryError(Code.OVER_LIMIT, "Too much."))
    watchdog.close()
    assert not interrupted.is_set()


def test_memory_of_the_process_is_watched(con: duckdb.DuckDBPyConnection) -> None:
    """A statement is interrupted as `over_limit` while the process exceeds its memory, and the next one is not."""
    watchdog = Watchdog(con.interrupt, resident_bytes_max=own_memory().unshared - 1)
    with pytest.raises(RetryError) as e, watchdog.limit(60_000, "It"):
        run(con, FOR_EVER)
    watchdog.close()
    assert e.value.code is Code.OVER_LIMIT
    run(con, "SELECT 1")


def test_time_between_statements_counts(con: duckdb.DuckDBPyConnection) -> None:
    """The time that Python needs for a result counts too."""
    watchdog = Watchdog(con.interrupt)
    with pytest.raises(RetryError) as e, watchdog.limit(0, "It") as block:
        block.check()
    watchdog.close()
    assert e.value.code is Code.TIMED_OUT


ROWS = {
    "insert": Sent("sql", {"statement": "INSERT INTO words SELECT range, repeat('x', 10000) FROM range(4000)"}),
    "narrow": Sent("sql", {"statement": "INSERT INTO words SELECT range, md5(range::VARCHAR) FROM range(1500000)"}),
    "update": Sent("sql", {"statement": "UPDATE words SET word = repeat('x', 10000)"}),
    "merge": Sent(
        "sql",
        {
            "statement": "MERGE INTO words AS w USING (SELECT range AS id FROM range(4000)) AS r ON w.id = r.id"
            " WHEN MATCHED THEN UPDATE SET word = repeat('x', 10000)"
        },
    ),
    "update_function": Sent("update", {"table": "words", "set": {"word": "x" * 20_000}}),
}


@pytest.mark.parametrize("kind", ROWS)
def test_rows_that_a_request_makes_are_bounded(tmp_path: Path, kind: str) -> None:
    """A statement that makes more bytes of rows than an append may carry fails alone, and so does a function."""
    model = OneWriter(tmp_path, [WORDS], LIMITS)
    made = Sent("sql", {"statement": "INSERT INTO words SELECT range, 'a' FROM range(4000)"})
    assert model.between(made).status is Status.DONE
    outcome = model.between(ROWS[kind])
    assert (outcome.status, (outcome.error or {}).get("code")) == (Status.FAILED, "over_limit"), outcome
    assert model.rows("SELECT count(*) AS n, max(length(word)) AS w FROM words") == [{"n": 4000, "w": 1}]
    model.check_good_rows()
    model.close()


def test_each_request_has_the_limit_of_rows(model: OneWriter) -> None:
    """Each request has the whole limit, also within one batch."""
    statements = [
        Sent("sql", {"statement": f"INSERT INTO words SELECT range, repeat('{c}', 10000) FROM range(1000)"})
        for c in "abcd"
    ]
    assert [o.status for o in model.apply(*statements)] == [Status.DONE] * 4


def test_rows_of_others_are_not_counted_in_the_end(model: OneWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests that were not measured before a longer one are done, and one beyond the limit is not."""
    monkeypatch.setattr(rows_watch, "BASE_MS", 60_000)
    many = [
        Sent("sql", {"statement": f"INSERT INTO words SELECT range, repeat('{c}', 10000) FROM range(1000)"})
        for c in "abcd"
    ]
    outcomes = model.apply(*many[:3], ROWS["insert"], many[3])
    assert [o.status for o in outcomes] == [Status.DONE] * 3 + [Status.FAILED, Status.DONE]
    assert (outcomes[3].error or {})["message"].startswith("The request makes rows of ")
    assert model.rows("SELECT count(*) AS n FROM words") == [{"n": 4000}]


def test_a_commit_without_memory_is_over_limit(tmp_path: Path) -> None:
    """An error that DuckDB raises only at the commit fails one request and does not stop the manager."""
    model = OneWriter(tmp_path, [WORDS], evolve(LimitSettings(), memory_bytes_max=64_000_000))
    statement = "INSERT INTO words SELECT range, repeat('x', 1000000) FROM range(150)"
    outcome = model.between(Sent("sql", {"statement": statement}))
    assert (outcome.status, (outcome.error or {}).get("code")) == (Status.FAILED, "over_limit"), outcome
    model.check_good_rows()
    model.close()


def test_a_request_interrupted_because_its_manager_leaves_has_no_outcome(model: OneWriter) -> None:
    """It is neither refused nor applied; the next manager applies it."""
    database = open_database(model.writer)
    timer = threading.Timer(0.3, model.writer.leave)
    timer.start()
    with pytest.raises(RetryError) as e:
        model.apply(Sent("query", {"sql": FOR_EVER}))
    timer.join()
    assert e.value.code is Code.UNAVAILABLE
    database._is_left = False


WIDE = {"table": "wide", "columns": [{"name": f"c{i}", "type": "BIGINT"} for i in range(100)]}


@pytest.mark.parametrize("rows", [{"c1": 1}, {}])
def test_columns_that_are_left_out_count(tmp_path: Path, rows: dict[str, int]) -> None:
    """Short rows of a wide table count with all its columns: they are refused before they are built."""
    model = OneWriter(tmp_path, [WIDE], LIMITS)
    for sent in (
        Sent("append", {"table": "wide", "rows": [rows] * 30_000}),
        Sent("append", arrow({"c1": list(range(30_000))}), arrow_headers(table="wide")),
    ):
        outcome = model.between(sent)
        assert (outcome.status, (outcome.error or {}).get("code")) == (Status.REJECTED, "body_too_large"), outcome
    model.check_good_rows()
    model.close()


def test_appends_are_inserted_together_up_to_the_limit(tmp_path: Path) -> None:
    """Many appends, each within the limit, are inserted whenever their rows reach it, and each has its outcome."""
    model = OneWriter(tmp_path, [WIDE], LIMITS)
    sent = [Sent("append", {"table": "wide", "rows": [{"c1": i}] * 15_000}) for i in range(4)]
    wrong = Sent("append", {"table": "wide", "rows": [{"c1": "x"}]})
    outcomes = model.apply(sent[0], sent[1], wrong, sent[2], sent[3])
    assert [o.status for o in outcomes] == [Status.DONE, Status.DONE, Status.REJECTED, Status.DONE, Status.DONE]
    assert model.rows("SELECT count(*) AS n FROM wide") == [{"n": 60_000}]
    model.close()


@pytest.mark.parametrize("count", [1, 8])
def test_a_request_that_invalidates_duckdb_for_memory_is_not_retried_for_ever(tmp_path: Path, count: int) -> None:
    """The file is opened again, and the request is refused; those around it are done."""

    def greedy(*_: object) -> None:
        raise InvalidatedError(Code.OVER_LIMIT, "Allocation failure.")

    model = OneWriter(tmp_path, [WORDS], LIMITS, built_in_functions().extended(Function("greedy", greedy)))
    words = Sent("append", {"table": "words", "rows": [{"id": 1, "word": "a"}]})
    bad = Sent("greedy")
    requests = [model._request(sent) for sent in ([words] * count + [bad] + [words] * count)]
    with pytest.raises(InvalidatedError):
        model.writer.apply(requests)
    for _ in range(4):
        try:
            applied = model.writer.apply([r for r in requests if r.seq > model.writer.applied_position.seq])
            break
        except InvalidatedError:
            continue
    statuses = [entry.outcome.status for entry in applied.entries]
    assert statuses == [Status.DONE] * count + [Status.FAILED] + [Status.DONE] * count
    prepared = model.writer.capture(applied, 0)
    ship(prepared, model.writer.context)
    model.writer.advance_base(prepared)
    assert model.rows("SELECT count(*) AS n FROM words") == [{"n": 2 * count}]
    model.close()


def test_memory_of_a_failed_update_is_freed(tmp_path: Path) -> None:
    """DuckDB keeps the texts of updates that it rolled back; after a reopen the next requests have all memory."""
    model = OneWriter(tmp_path, [WORDS], evolve(LIMITS, memory_bytes_max=64_000_000))
    model.apply(Sent("sql", {"statement": "INSERT INTO words SELECT range, repeat('a', 10000) FROM range(1000)"}))
    outcome = model.between(Sent("sql", {"statement": "UPDATE words SET word = repeat('y', 200000)"}))
    assert (outcome.status, (outcome.error or {}).get("code")) == (Status.FAILED, "over_limit")
    model.check_good_rows()
    assert open_database(model.writer).held_bytes() < 8_000_000
    model.close()


def test_a_request_that_leaves_no_memory_to_refuse_it_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is opened again and the refusal committed; the request is not tried again."""
    runs = 0

    def greedy(*_: object) -> None:
        nonlocal runs
        runs += 1
        monkeypatch.setattr(Batch, "_commit_refused", full)
        raise RetryError(Code.OVER_LIMIT, "Failed to allocate data.")

    def full(_: Batch) -> None:
        monkeypatch.undo()
        raise RetryError(Code.OVER_LIMIT, "Failed to allocate data.")

    model = OneWriter(tmp_path, [WORDS], LIMITS, built_in_functions().extended(Function("greedy", greedy)))
    words = Sent("append", {"table": "words", "rows": [{"id": 1, "word": "a"}]})
    requests = [model._request(sent) for sent in (Sent("greedy"), words)]
    with pytest.raises(RetryError):
        model.writer.apply(requests)
    applied = model.writer.apply(model.writer.rest_of(requests))
    assert [entry.outcome.status for entry in applied.entries] == [Status.FAILED, Status.DONE]
    assert runs == 1
    prepared = model.writer.capture(applied, 0)
    ship(prepared, model.writer.context)
    model.writer.advance_base(prepared)
    model.close()
