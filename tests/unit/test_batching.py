"""The result of a request does not depend on how requests were batched, and many refusals cost little."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from one_writer import OneWriter, Sent
from teatree.contracts.errors import Code, OperatorError, RequestError
from teatree.contracts.formats.notices import Outcome, Status
from teatree.engine.apply.batch import Batch
from teatree.engine.commits import Commit
from teatree.engine.duckdb.commit_table import record_commit
from teatree.engine.duckdb.database import Database

KEYS: dict[str, list[Any]] = {
    "BIGINT": [0, 1, -1, 2**62],
    "HUGEINT": [0, 2**100, -(2**100)],
    "UTINYINT": [0, 255],
    "BOOLEAN": [True, False],
    "DOUBLE": [0.0, -0.0, "NaN", "Infinity", "-Infinity", 1.5, 1],
    "FLOAT": [0.0, -0.0, "NaN", 1.5],
    "DECIMAL(10,3)": [1, "1.0", "1.000", "1.001", -1],
    "DECIMAL(38,2)": ["1.5", "1.50", "2"],
    "VARCHAR": ["", "a", "A", "ä", "a\u0308", "a ", "x" * 40, "x" * 41, "a\0b", "a\0"],
    "BLOB": ["", "AA==", "AAE=", "AAA="],
    "BIT": ["0", "00", "1", "01"],
    "DATE": ["2024-01-01", "infinity", "-infinity", "2024-01-02"],
    "TIME": ["00:00:00", "24:00:00", "12:00:00.000001"],
    "TIME_NS": ["00:00:00", "12:00:00.000000001", "12:00:00"],
    "TIMETZ": ["12:00:00+00:00", "13:00:00+01:00", "12:00:00+01:00", "11:00:00+00:00"],
    "TIMESTAMP": ["2024-01-01T00:00:00", "2024-01-01T00:00:00.000001", "infinity"],
    "TIMESTAMP_S": ["2024-01-01T00:00:00", "2024-01-01T00:00:01"],
    "TIMESTAMP_MS": ["2024-01-01T00:00:00", "2024-01-01T00:00:00.001"],
    "TIMESTAMP_NS": ["2024-01-01T00:00:00", "2024-01-01T00:00:00.000000001"],
    "TIMESTAMPTZ": ["2024-01-01T00:00:00Z", "2024-01-01T01:00:00+01:00", "2024-01-01T01:00:00Z"],
    "TIMESTAMPTZ_NS": ["2024-01-01T00:00:00Z", "2024-01-01T01:00:00+01:00"],
    "UUID": ["00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-00000000000a"],
    "JSON": [{"a": 1}, {"a": 1.0}, [], None, "a"],
    "ENUM('a', 'A', 'b')": ["a", "A", "b"],
}
"""Types that a key can have, with values of which some are equal and some nearly."""


def published(outcome: Outcome) -> tuple[object, ...]:
    """Return the members of an outcome that its sender receives."""
    return outcome.request_id, outcome.status, outcome.result, outcome.error


def apply_all(
    folder: Path, setup: list[Sent], sent: list[Sent], cuts: random.Random | None
) -> tuple[list[Any], list[Any]]:
    """Apply requests to a new model, one by one or in batches; return their outcomes and the content of the tables."""
    writer = OneWriter(folder, [{"table": "none", "columns": [{"name": "id", "type": "BIGINT"}]}])
    assert {o.status for o in writer.apply(*setup)} == {Status.DONE}
    outcomes: list[Outcome] = []
    waiting = list(sent)
    while waiting:
        count = cuts.choice((1, 3, 20, 200)) if cuts else 1
        outcomes += writer.apply(*waiting[:count])
        del waiting[:count]
    names = [one.body["table"] for one in setup if one.function == "create_table"]
    held = [writer.rows(f"SELECT COLUMNS(*)::VARCHAR FROM {name} ORDER BY ALL") for name in names]
    writer.close()
    return [published(outcome) for outcome in outcomes], held


def with_ids(sent: list[Sent], seed: int) -> list[Sent]:
    """Return the requests with ids that depend on the seed only."""
    return [
        Sent(one.function, one.body, {"Teatree-Request-Id": f"r{seed}-{place}", **one.headers})
        for place, one in enumerate(sent)
    ]


@pytest.mark.parametrize(
    "first", [0, 6, *(pytest.param(place, marks=pytest.mark.slow) for place in range(12, len(KEYS), 6))]
)
def test_keys_of_every_type_are_refused_as_the_index_does(tmp_path: Path, first: int) -> None:
    """A key exists if DuckDB's index has it, for every type, alone and with another column."""
    draw = random.Random(first)
    kinds = list(KEYS)[first : first + 6]
    setup, sent = [], []
    for number, kind in enumerate(kinds):
        columns = [{"name": "k", "type": kind}, {"name": "n", "type": "INTEGER"}]
        for table, key in ((f"a{number}", ["k"]), (f"b{number}", ["n", "k"])):
            setup.append(Sent("create_table", {"table": table, "columns": columns, "primary_key": key}))
            for _ in range(5):
                rows = [
                    {"K": draw.choice(KEYS[kind]), "n": draw.choice((1, 2))} for _ in range(draw.choice((1, 1, 1, 2)))
                ]
                sent.append(Sent("append", {"table": table, "rows": rows}))
    sent = with_ids(sent, first)
    alone = apply_all(tmp_path / "alone", setup, sent, None)
    together = apply_all(tmp_path / "together", setup, sent, random.Random(first))
    assert together == alone
    codes = {error["code"] for *_, error in alone[0] if error}
    assert Code.CONSTRAINT in codes
    assert codes <= {Code.CONSTRAINT, Code.NOT_NULL, Code.OUT_OF_RANGE, Code.TYPE_MISMATCH}, codes


def _request(draw: random.Random, seen: list[Sent]) -> Sent:
    table = draw.choice(("one", "two", "def", "now", "free"))
    key = draw.randrange(12)
    row: dict[str, Any] = {"a": key, "v": draw.choice((1, 2, None, "x"))}
    if table == "two":
        row["b"] = draw.choice(("u", "U", "v"))
    if table == "def" and draw.random() < 0.4:
        row = {"v": 1}
    match draw.randrange(20):
        case 0:
            return Sent("delete", {"table": table, "where": {"a": key}})
        case 1:
            return Sent("update", {"table": table, "set": {"a": key}, "where": {"a": draw.randrange(12)}})
        case 2:
            return Sent("upsert", {"table": "one", "rows": [row if "a" in row else {"a": key}]})
        case 3:
            return Sent("sql", {"statement": f"INSERT INTO one (a) VALUES ({key})"})
        case 4:
            table = draw.choice(("free", "one"))
            return Sent("sql", {"statement": f"UPDATE {table} SET a = {draw.choice(('a + 1', 'a + 2', '11 - a'))}"})
        case 5:
            return Sent("append", {"table": table, "rows": [row], "expected_version": 2})
        case 6 if seen:
            return draw.choice(seen)  # a resend
        case 7:
            return Sent("replace", {"table": "free", "rows": [row] if "b" not in row else []})
        case 8:
            return Sent(
                "append", {"table": "one", "rows": [{"a": key, "v": 1}, {"a": draw.randrange(12)}, {"a": key + 20}]}
            )
        case _:
            return Sent("append", {"table": table, "rows": [row]})


@pytest.mark.parametrize("statement", ["UPDATE t SET id = 5 - id", "UPDATE t SET id = id + 1"])
def test_keys_that_are_exchanged(tmp_path: Path, statement: str) -> None:
    """An UPDATE whose rows exchange their keys is done, whatever was committed or checkpointed just before it."""
    columns = [{"name": "id", "type": "INTEGER"}]
    setup = [Sent("create_table", {"table": "t", "columns": columns, "primary_key": ["id"]})]
    insert = [Sent("append", {"table": "t", "rows": [{"id": n}]}) for n in range(5)]
    delete, again = (
        Sent("delete", {"table": "t", "where": {"id": 2}}),
        Sent("append", {"table": "t", "rows": [{"id": 2}]}),
    )
    change = Sent("sql", {"statement": statement})
    twice = Sent("update", {"table": "t", "set": {"id": 7}, "where": {}})
    sent = with_ids([*insert, change, delete, again, change, twice, change], 1)
    alone = apply_all(tmp_path / "alone", setup, sent, None)
    together = apply_all(tmp_path / "together", setup, sent, random.Random(3))
    assert together == alone
    assert [status for _, status, *_ in alone[0][5:]].count(Status.DONE) == len(sent) - 6
    assert (alone[0][-2][3] or {})["code"] == Code.CONSTRAINT


@pytest.mark.parametrize(
    "seed",
    [
        0,
        pytest.param(1, marks=pytest.mark.slow),
        pytest.param(2, marks=pytest.mark.slow),
        pytest.param(3, marks=pytest.mark.slow),
    ],
)
def test_results_do_not_depend_on_batches(tmp_path: Path, seed: int) -> None:
    """Appends that repeat keys, beside other changes, have the same results in batches of any size."""
    draw = random.Random(seed)
    kinds: dict[str, tuple[list[dict[str, Any]], list[str]]] = {
        "one": ([{"name": "a", "type": "BIGINT"}], ["a"]),
        "two": ([{"name": "a", "type": "BIGINT"}, {"name": "b", "type": "VARCHAR"}], ["b", "a"]),
        "def": ([{"name": "a", "type": "BIGINT", "default": 5}], ["a"]),
        "now": (
            [{"name": "d", "type": "DATE", "default": "current_date"}, {"name": "a", "type": "BIGINT"}],
            ["d", "a"],
        ),
        "free": ([{"name": "a", "type": "BIGINT"}], []),
    }
    setup = [
        Sent(
            "create_table", {"table": name, "columns": [*columns, {"name": "v", "type": "INTEGER"}], "primary_key": key}
        )
        for name, (columns, key) in kinds.items()
    ]
    sent: list[Sent] = []
    for place in range(100):
        one = _request(draw, sent)
        sent.append(one if one in sent else Sent(one.function, one.body, {"Teatree-Request-Id": f"s{seed}-{place}"}))
    alone = apply_all(tmp_path / "alone", setup, sent, None)
    together = apply_all(tmp_path / "together", setup, sent, random.Random(seed))
    assert [pair for pair in zip(together[0], alone[0], sent, strict=True) if pair[0] != pair[1]] == []
    assert together[1] == alone[1]
    assert sum(error is not None for *_, error in alone[0]) > 15


def test_refused_appends_cost_no_transaction_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch in which every other append repeats a key is run twice: once as it is, once with the keys looked up."""
    transactions: list[int] = []
    inner = Batch._in_transaction

    def counted(self: Batch, *args: Any) -> None:
        transactions.append(1)
        inner(self, *args)

    monkeypatch.setattr(Batch, "_in_transaction", counted)
    columns = [{"name": "id", "type": "BIGINT"}]
    writer = OneWriter(tmp_path, [{"table": "t", "columns": columns, "primary_key": ["id"]}])
    outcomes = writer.apply(*(Sent("append", {"table": "t", "rows": [{"id": i if i % 2 else 1}]}) for i in range(400)))
    assert [o.status for o in outcomes[:3]] == [Status.DONE, Status.REJECTED, Status.REJECTED]
    assert sum(o.status is Status.REJECTED for o in outcomes) == 200
    assert len(transactions) == 2
    assert writer.rows("SELECT count(*) AS n FROM t") == [{"n": 200}]
    writer.close()


def test_refused_statements_cost_one_transaction_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where every other statement fails, at most one transaction more than there are good ones is committed."""
    commits: list[int] = []

    def counted(database: Database, commit: Commit, shipped_version: int | None) -> None:
        commits.append(commit.offset)
        record_commit(database, commit, shipped_version)

    monkeypatch.setattr("teatree.engine.duckdb.write_connection.record_commit", counted)
    columns = [{"name": "id", "type": "BIGINT"}]
    writer = OneWriter(tmp_path, [{"table": "t", "columns": columns, "primary_key": ["id"]}])
    statements = [f"INSERT INTO t VALUES ({i if i % 2 else 1})" for i in range(60)]
    outcomes = writer.apply(*(Sent("sql", {"statement": statement}) for statement in statements))
    assert sum(o.status is Status.REJECTED for o in outcomes) == 30
    assert len(commits) <= 31
    writer.close()


def test_a_commit_that_did_nothing_is_not_taken_for_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """COMMIT after an error that was swallowed returns success and rolls back: such a batch has no outcomes."""

    def swallowed(database: Database, commit: Commit, shipped_version: int | None) -> None:
        record_commit(database, commit, shipped_version)
        with pytest.raises(RequestError):
            database.rows("SELECT * FROM missing")

    writer = OneWriter(tmp_path, [{"table": "t", "columns": [{"name": "id", "type": "BIGINT"}]}])
    with monkeypatch.context() as patched:
        patched.setattr("teatree.engine.duckdb.write_connection.record_commit", swallowed)
        with pytest.raises(OperatorError, match="did not take effect"):
            writer.apply(Sent("append", {"table": "t", "rows": [{"id": 1}]}))
    assert writer.rows("SELECT count(*) AS n FROM t") == [{"n": 0}]
    writer.close()
