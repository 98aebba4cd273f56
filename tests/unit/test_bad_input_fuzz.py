"""Any bytes as a body or a statement: one outcome each, the process survives, the neighbours commit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_bad_input import TABLES, TYPES, check_sentence

from one_writer import OneWriter, Sent, arrow, arrow_headers
from teatree.contracts.errors import Code
from teatree.contracts.formats.notices import Status
from teatree.contracts.settings import LimitSettings
from teatree.functions.registry import built_in_functions

LIMITS = evolve(
    LimitSettings(),
    query_time_ms_max=1_000,
    request_time_ms_max=1_000,
    rows_bytes_max=20_000_000,
    memory_bytes_max=200_000_000,
    temp_bytes_max=100_000_000,
    query_rows_max=10_000,
)
FUNCTIONS = sorted(set(built_in_functions().functions) - {"create_model", "drop_model", "archive", "restore"})
fuzz = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
ARGUMENTS = (
    "table",
    "rows",
    "columns",
    "key",
    "set",
    "where",
    "sql",
    "statement",
    "parameters",
    "add",
    "drop",
    "rename",
)
STREAM = arrow(
    {
        "i": pa.array([1, None, 3], pa.int32()),
        "t": ["a", None, "é" * 10],
        "e": pa.array(["a", "b", None]).dictionary_encode(),
        "l": [[1], None, []],
        "s": [{"x": 1}, None, {"x": None}],
        "ts": pa.array([1, 2, None], pa.timestamp("us")),
    }
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**130), 2**130)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["t", "k", "good", "i", "n", "id", "v", "_teatree.commits", "NaN", "2026-01-01", "FROM t"])
)
names = st.sampled_from([*ARGUMENTS, *TYPES, "id", "v", "n"]) | st.text(max_size=5)
values = st.recursive(
    scalars, lambda of: st.lists(of, max_size=4) | st.dictionaries(names, of, max_size=4), max_leaves=20
)
WORDS = """
SELECT FROM WHERE t k good i id v n * ( ) , ; ' " -- /* */ INSERT INTO VALUES (1) UPDATE SET DELETE MERGE USING ON WHEN
MATCHED THEN WITH RECURSIVE AS x UNION ALL GROUP BY ORDER LIMIT 1 NULL 'a' $1 ? ?1 $x :: INTEGER [ ] { } = <> + JOIN
LATERAL unnest range(3) read_csv _teatree commits . PIVOT UNPIVOT QUALIFY OVER PARTITION RETURNING DEFAULT CONFLICT DO
NOTHING COPY TO ATTACH BEGIN COMMIT PRAGMA SET SHOW DESCRIBE SUMMARIZE TABLE EXPLAIN CAST struct_pack(a := 1) 1e999
""".split()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneWriter]:
    """Return a model with a table of every type and one with a key."""
    writer = OneWriter(tmp_path_factory.mktemp("model"), TABLES, LIMITS)
    yield writer
    writer.close()


def check(model: OneWriter, *requests: Sent) -> None:
    """Check that each request has one outcome that people can read, in one batch with two good neighbours."""
    before = Sent("append", {"table": "k", "rows": [{"id": 1, "v": "a"}]})
    after = Sent("delete", {"table": "k", "where": {}})
    outcomes = model.apply(before, *requests, after)
    assert (outcomes[0].status, outcomes[-1].status) == (Status.DONE, Status.DONE)
    for outcome in outcomes:
        if outcome.error is not None:
            assert Code(outcome.error["code"]) not in (Code.INTERNAL, Code.CORRUPT), outcome.error
            assert outcome.error["where"]
            check_sentence(outcome.error["message"])


def arguments(function: str, given_values: dict[str, Any]) -> bytes:
    """Return arguments that pass the first checks more often than random ones."""
    own = {"table": "t"} if function not in ("sql", "query") else {}
    return json.dumps({**own, **given_values}).encode()


@fuzz
@given(function=st.sampled_from(FUNCTIONS), body=st.binary(max_size=200))
def test_any_bytes_as_a_body(model: OneWriter, function: str, body: bytes) -> None:
    """Any bytes as a JSON body end in one outcome."""
    check(model, Sent(function, body), Sent(function, body, arrow_headers(table="t")))


@fuzz
@given(function=st.sampled_from(FUNCTIONS), body=st.dictionaries(names, values, max_size=5))
def test_any_arguments(model: OneWriter, function: str, body: dict[str, Any]) -> None:
    """Any JSON object as the arguments ends in one outcome."""
    check(model, Sent(function, arguments(function, body)))


@fuzz
@given(rows=st.lists(st.dictionaries(st.sampled_from(sorted(TYPES)), values, max_size=4), max_size=4))
def test_any_rows(model: OneWriter, rows: list[dict[str, Any]]) -> None:
    """Any values in any columns end in one outcome, as rows of any function."""
    sent = [
        Sent("append", {"table": "t", "rows": rows}),
        Sent("upsert", {"table": "t", "rows": rows, "key": sorted(rows[0])[:1] if rows else ["i"]}),
        Sent("replace", {"table": "t", "rows": rows}),
        Sent("update", {"table": "t", "set": rows[0] if rows else {}, "where": rows[-1] if rows else {}}),
        Sent("delete", {"table": "t", "where": rows[0] if rows else {}}),
    ]
    check(model, *sent)


@fuzz
@given(data=st.data())
def test_any_damage_to_an_arrow_stream(model: OneWriter, data: st.DataObject) -> None:
    """A stream with bytes changed, cut out or cut off ends in one outcome."""
    body = bytearray(STREAM)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, max(0, len(body) - 1)))
        match data.draw(st.integers(0, 3)):
            case 0:
                body[at : at + 1] = bytes([data.draw(st.integers(0, 255))])
            case 1:
                body[at : at + 4] = data.draw(st.sampled_from([b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\0"]))
            case 2:
                del body[at : at + data.draw(st.integers(1, 64))]
            case 3:
                del body[at:]
    check(model, Sent("append", bytes(body), arrow_headers(table="t")))


@fuzz
@given(words=st.lists(st.sampled_from(WORDS), max_size=14) | st.lists(st.text(max_size=8), max_size=3))
def test_any_statement(model: OneWriter, words: list[str]) -> None:
    """Any text as a statement or a query ends in one outcome."""
    text = " ".join(words)
    check(
        model, Sent("query", {"sql": f"SELECT {text}"}), Sent("query", {"sql": text}), Sent("sql", {"statement": text})
    )
