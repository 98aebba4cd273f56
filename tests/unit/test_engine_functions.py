"""Functions of an app behind the queue: applied as the built-in ones are, and what is wrong with one harms it alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from installed_apps import APPS
from one_writer import OneWriter, Sent, arrow, arrow_headers
from teatree.contracts.formats.notices import Outcome, Status
from teatree.contracts.formats.provenance import AppCode
from teatree.contracts.settings import LimitSettings
from teatree.storage.ledger.segments import read_segment

GOALS = {
    "table": "goals",
    "columns": [
        {"name": "period", "type": "VARCHAR"},
        {"name": "site", "type": "VARCHAR"},
        {"name": "amount", "type": "DECIMAL(18,2)"},
    ],
}
NOTES = {
    "table": "notes",
    "columns": [
        {"name": "period", "type": "VARCHAR"},
        {"name": "at", "type": "VARCHAR"},
        {"name": "number", "type": "BIGINT"},
    ],
}
NUMBERS = {"table": "numbers", "columns": [{"name": "n", "type": "BIGINT"}]}
LIMITS = LimitSettings(result_bytes_max=1_000_000, request_time_ms_max=3_600_000)


@pytest.fixture(scope="module", autouse=True)
def goals_app() -> Iterator[None]:
    """Let the app `goals` be found."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(APPS)
        yield


@pytest.fixture
def model(tmp_path: Path) -> Iterator[OneWriter]:
    """Return a model with the app `goals`."""
    model = OneWriter(tmp_path, [GOALS, NOTES, NUMBERS], LIMITS, app="goals")
    yield model
    model.check_good_rows()
    model.close()


@pytest.fixture(scope="module")
def unharmed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneWriter]:
    """Return a model for requests of which none has an effect."""
    model = OneWriter(tmp_path_factory.mktemp("unharmed"), [GOALS, NOTES, NUMBERS], LIMITS, app="goals")
    yield model
    model.check_good_rows()
    assert model.rows("SELECT (SELECT count(*) FROM numbers) + (SELECT count(*) FROM goals) AS n") == [{"n": 0}]
    model.close()


def call(function: str, /, **arguments: Any) -> Sent:
    """Return a request."""
    return Sent(function, arguments)


def misbehave(how: str) -> Sent:
    """Return a request that does something bad."""
    return call("misbehave", how=how)


def error(outcome: Outcome) -> dict[str, Any]:
    """Return the error of a request that was not done."""
    assert outcome.error is not None
    return outcome.error


def test_a_mutation_changes_two_tables_and_returns_json(model: OneWriter) -> None:
    """Its result, its tables and its app's code are in its outcome, as the store keeps it, and in the manifest."""
    before = model.chain.newest()
    (outcome,) = model.apply(call("set_goals", period="2026", amounts={"Berlin": 10.5, "Oslo": 3}))
    assert (outcome.status, outcome.result, outcome.tables) == (Status.DONE, {"sites": 2}, ("goals", "notes"))
    newest = model.chain.newest()
    assert before is not None
    assert newest is not None
    assert (before.options.app, before.app) == ("goals", None)
    assert outcome.app is not None
    assert newest.app == outcome.app == AppCode("goals", "1.0", outcome.app.code_hash)
    assert read_segment(model.chain.store, model.chain.folder, newest)[0].outcome == outcome
    assert model.rows("SELECT site, amount FROM goals ORDER BY site") == [
        {"site": "Berlin", "amount": 10.5},
        {"site": "Oslo", "amount": 3.0},
    ]


def test_a_query_sees_all_before_it_and_its_rows_are_pages(model: OneWriter) -> None:
    """A Dataset is cut into pages, of the function's size or the request's; any other result is as it is."""
    sent = [
        call("set_goals", period="p", amounts={"a": 1, "b": 2, "c": 3}),
        call("goals_of", period="p"),
        call("total", period="p"),
        call("set_goals", period="p", amounts={"a": 10}),
        call("total", period="p"),
        call("goals_of", period="p", page_size=5, format="arrow"),
        call("doubled", n=21),
    ]
    _, goals, first, _, second, arrow_goals, doubled = model.apply(*sent)
    assert goals.result["rows"] == 3
    pages = [json.loads(model.chain.store.get(model.chain.key(page["ref"]))) for page in goals.pages]
    assert [[row["site"] for row in page["rows"]] for page in pages] == [["a", "b"], ["c"]]
    assert (first.result, second.result) == ("6.00", "15.00")
    assert [page["format"] for page in arrow_goals.pages] == ["arrow"]
    assert (doubled.result, doubled.effect, doubled.app) == (42, False, goals.app)


def test_a_dependency_of_a_mutation_reads_its_transaction(model: OneWriter) -> None:
    """It sees what the requests before it in the batch have written."""
    sent = [
        call("set_goals", period="p", amounts={"a": 10, "b": 2}),
        call("raise_goals", pct="10"),
        call("total", period="p"),
    ]
    outcomes = model.apply(*sent)
    assert [outcome.result for outcome in outcomes] == [{"sites": 2}, "10.00", "13.20"]


def test_the_time_and_the_numbers_are_the_logs(tmp_path: Path) -> None:
    """A request that is applied again on another host writes the same."""
    found = []
    for host in ("one", "two"):
        model = OneWriter(tmp_path / host, [GOALS, NOTES, NUMBERS], LIMITS, app="goals")
        sent = Sent("set_goals", {"period": "p", "amounts": {"a": 1}}, {"Teatree-Request-Id": "the-same"})
        model.apply(sent)
        found.append(model.rows('SELECT "at", number FROM notes'))
        model.close()
    assert found[0] == found[1]
    assert found[0][0]["at"] == "2026-01-01T00:00:02+00:00"


@pytest.mark.parametrize(
    ("arguments", "code", "where"),
    [
        ({"period": "p", "amounts": {"a": "x"}}, "type_mismatch", "amounts.a"),
        ({"period": 5, "amounts": {}}, "type_mismatch", "period"),
        ({"amounts": {}}, "missing_argument", "period"),
        ({"period": "p", "amounts": {}, "more": 1}, "unknown_argument", "more"),
        ({"period": "p", "amounts": {}, "expected_version": 10**6}, "unknown_version", "expected_version"),
        ({"period": "p", "amounts": {"b": 1, "a": -1}}, "refused", "amounts.a"),
    ],
)
def test_wrong_arguments_are_rejected(unharmed: OneWriter, arguments: dict[str, Any], code: str, where: str) -> None:
    """The error names the path of the bad value; what the function wrote before it refused is rolled back."""
    outcome = unharmed.between(Sent("set_goals", arguments))
    assert (outcome.status, error(outcome)["code"], error(outcome)["where"]) == (Status.REJECTED, code, where)


def test_rows_for_a_function_that_takes_none(unharmed: OneWriter) -> None:
    """An Arrow body is refused."""
    outcome = unharmed.between(Sent("one_row", arrow({"n": [1]}), arrow_headers(n=1)))
    assert error(outcome)["code"] == "bad_content_type"


@pytest.mark.parametrize(
    ("how", "status", "code", "what"),
    [
        ("raise", Status.FAILED, "app_error", "misbehave raised ValueError: this cannot be"),
        ("deep", Status.FAILED, "app_error", "LookupError: the bottom of 0"),
        ("refuse", Status.REJECTED, "refused", "not today"),
        ("exit", Status.FAILED, "app_error", "SystemExit: 3"),
        ("interrupt", Status.FAILED, "app_error", "KeyboardInterrupt"),
        ("unprintable", Status.FAILED, "app_error", "Unprintable"),
        ("memory", Status.FAILED, "over_limit", "not enough memory"),
        ("recurse", Status.FAILED, "app_error", "RecursionError"),
        ("commit", Status.REJECTED, "sql_not_allowed", ""),
        ("rollback", Status.REJECTED, "sql_not_allowed", ""),
        ("begin", Status.REJECTED, "sql_not_allowed", ""),
        ("own_table", Status.REJECTED, "sql_not_allowed", ""),
        ("swallow", Status.REJECTED, "type_mismatch", "no number"),
        ("object", Status.FAILED, "bad_result", "object"),
        ("huge", Status.REJECTED, "result_too_large", "2,000,002 bytes"),
        ("error_of_ours", Status.FAILED, "unavailable", "made by a function"),
        ("unknown", Status.FAILED, "app_error", "KeyError"),
    ],
)
def test_a_function_that_misbehaves_harms_itself_alone(
    unharmed: OneWriter, how: str, status: Status, code: str, what: str
) -> None:
    """Its outcome names what was wrong, all that it wrote is rolled back, and its neighbours are done."""
    outcome = unharmed.between(misbehave(how))
    assert (outcome.status, error(outcome)["code"]) == (status, code), outcome.error
    assert what in error(outcome)["message"]
    assert outcome.app is not None


def test_the_traceback_is_the_users(unharmed: OneWriter) -> None:
    """It has the innermost frames of the app's code, and none of Teatree's; it is bounded."""
    found = error(unharmed.between(misbehave("deep")))["traceback"]
    assert found.startswith("Traceback")
    assert "functions.py" in found
    assert found.endswith("LookupError: the bottom of 0")
    assert "teatree" not in found.replace(str(APPS), "")
    assert len(found) <= 4_000
    assert "traceback" not in error(unharmed.between(misbehave("refuse")))


def test_refusals_of_the_guard_leave_the_transaction_as_it_was(model: OneWriter) -> None:
    """A function that ignores them continues; nothing that they name was run."""
    (outcome,) = model.apply(misbehave("swallow_guard"))
    assert (outcome.status, outcome.result) == (Status.DONE, 1)
    assert model.rows("SELECT n FROM numbers") == [{"n": 1000}]


def test_a_leaked_handle_is_of_no_use(model: OneWriter) -> None:
    """A handle ends with its function."""
    leaked, used = model.apply(misbehave("leak"), misbehave("leaked"))
    assert leaked.status is Status.DONE
    assert used.status is Status.REJECTED
    assert model.rows("SELECT n FROM numbers") == [{"n": 0}]


def test_a_resend_is_answered_with_the_first_result(model: OneWriter) -> None:
    """A function of an app takes effect once per id."""
    sent = Sent("one_row", {"n": 1}, {"Teatree-Request-Id": "once"})
    first, again, other = model.apply(sent, sent, Sent("one_row", {"n": 2}, sent.headers))
    (later,) = model.apply(sent)
    assert (first.status, again.status, later.status, other.status) == (*[Status.DONE] * 3, Status.REJECTED)
    assert model.rows("SELECT n FROM numbers") == [{"n": 1}]


def test_progress(model: OneWriter) -> None:
    """What a function reports is published as a request's progress."""
    model.apply(call("slow", seconds=0))
    assert model.progress == [("slow", step / 4, f"step {step}") for step in range(4)]


def test_many_calls_share_a_transaction(model: OneWriter) -> None:
    """Neighbours in a batch commit together; one that fails among them fails alone."""
    outcomes = model.apply(*[call("one_row", n=n) for n in range(20)], misbehave("raise"), call("one_row", n=20))
    assert [outcome.status for outcome in outcomes] == [*[Status.DONE] * 20, Status.FAILED, Status.DONE]
    assert model.rows("SELECT count(*) AS n FROM numbers") == [{"n": 21}]
