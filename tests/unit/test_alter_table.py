"""alter_table: every type, default and place of a column, on empty and filled tables, beside other requests."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from one_writer import OneWriter, Sent
from teatree.contracts.errors import Code
from teatree.contracts.formats.notices import Outcome, Status

TIMES = ("TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", "TIMESTAMPTZ", "TIMESTAMPTZ_NS")
COMPUTED = [
    *((kind, "now()") for kind in (*TIMES, "DATE", "TIME", "TIME_NS", "TIMETZ")),
    *((kind, "Current_Timestamp") for kind in ("TIMESTAMP", "TIME")),
    *((kind, "current_date") for kind in (*TIMES, "DATE")),
    ("UUID", "uuid()"),
    ("UUID", "gen_random_uuid()"),
]
LITERALS = [
    ("BOOLEAN", True),
    *((kind, 7) for kind in ("TINYINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "UHUGEINT", "DOUBLE", "FLOAT")),
    ("DECIMAL(5,2)", "1.25"),
    ("VARCHAR", "it's"),
    ("VARCHAR", "now()"),
    ("BLOB", "AAEC"),
    ("BIT", "0101"),
    *((kind, "2024-02-29T01:02:03") for kind in TIMES[:4]),
    *((kind, "2024-02-29T01:02:03Z") for kind in TIMES[4:]),
    ("DATE", "2024-02-29"),
    ("TIME", "01:02:03"),
    ("TIME_NS", "01:02:03"),
    ("TIMETZ", "01:02:03+01:00"),
    ("INTERVAL", "P1M2DT3S"),
    ("UUID", "00000000-0000-0000-0000-000000000001"),
    ("JSON", {"a": [1, None]}),
    ("ENUM('a', 'b''c')", "b'c"),
    ("INTEGER[]", [1, None, 3]),
    ("VARCHAR[][]", [["a"], []]),
    ("BLOB[]", ["AAEC"]),
    ("INTERVAL[]", ["P1D"]),
]
ODD = [("STRUCT(a INTEGER)", None), ("MAP(VARCHAR, INTEGER)", None), ("INTEGER[2]", None), ("INTEGER", None)]
ADDED = [*COMPUTED, *LITERALS, *ODD]


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneWriter]:
    """Return one model for all tests of this file."""
    table = {"table": "t", "columns": [{"name": "id", "type": "BIGINT"}]}
    opened = OneWriter(tmp_path_factory.mktemp("model"), [table])
    yield opened
    opened.close()


def done(*outcomes: Outcome) -> None:
    """Check that requests were done."""
    assert [o.status for o in outcomes] == [Status.DONE] * len(outcomes), [o.error for o in outcomes]


def table(name: str, key: list[str], rows: int) -> list[Sent]:
    """Return the requests that create a table with the columns a, id, b and fill it."""
    columns: list[dict[str, Any]] = [
        {"name": "a", "type": "VARCHAR", "default": "x", "nullable": False},
        {"name": "id", "type": "BIGINT"},
        {"name": "b", "type": "INTEGER", "default": 5},
    ]
    filled = Sent("append", {"table": name, "rows": [{"id": i, "b": i} for i in range(rows)]})
    made = Sent("create_table", {"table": name, "columns": columns, "primary_key": key})
    return [Sent("drop_table", {"table": name, "if_exists": True}), made, *([filled] if rows else [])]


@pytest.mark.parametrize("nullable", [True, False], ids=["null", "not null"])
@pytest.mark.parametrize(
    ("key", "rows"),
    [
        ([], 0),
        (["id"], 3),
        (["b", "id"], 3),
        pytest.param([], 3, marks=pytest.mark.slow),
        pytest.param(["id"], 0, marks=pytest.mark.slow),
        pytest.param(["b", "id"], 0, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_a_column_is_added(writer: OneWriter, key: list[str], rows: int, *, nullable: bool) -> None:
    """A column of any type and default, NULL or not, is added to any table; old and new rows have its default."""
    names = {f"t{place}": added for place, added in enumerate(ADDED) if nullable or added[1] is not None}
    done(*writer.apply(*(one for name in names for one in table(name, key, rows))))
    adds = []
    for name, (kind, default) in names.items():
        add = {"name": "C", "type": kind, "nullable": nullable} | ({} if default is None else {"default": default})
        adds.append(Sent("alter_table", {"table": name.upper(), "add": add}))
    outcomes = writer.apply(*adds)
    done(*outcomes)
    assert all(outcome.result == {"columns": ["a", "id", "b", "C"]} for outcome in outcomes)
    done(*writer.apply(*(Sent("append", {"table": name, "rows": [{"id": 99}]}) for name in names)))
    parts = (f"SELECT '{name}' AS t, a, id, c::VARCHAR AS c FROM {name}" for name in names)
    found = writer.rows(
        f"SELECT t, list(a) AS a, list(id) AS id, list(c) AS c FROM ({' UNION ALL '.join(parts)}) GROUP BY t"
    )
    assert len(found) == len(names)
    for row in found:
        kind, default = names[row["t"]]
        assert (row["a"], row["id"]) == (["x"] * (rows + 1), [*range(rows), 99])
        assert all((value is None) is (default is None) for value in row["c"])
        assert len(set(row["c"])) == (rows + 1 if kind == "UUID" and "uuid" in str(default) else len(set(row["c"])))
        assert (kind, default) not in LITERALS or len(set(row["c"])) == 1


def test_what_was_added_is_checked(writer: OneWriter) -> None:
    """A rewritten table still refuses NULL and existing keys; a column without a value is refused."""
    done(*writer.apply(*table("c", ["id"], 3)))
    add = {"name": "c", "type": "TIMESTAMP", "nullable": False}
    refused = writer.between(Sent("alter_table", {"table": "c", "add": add}))
    assert refused.error is not None
    assert refused.error["code"] == Code.BAD_ARGUMENT
    done(*writer.apply(Sent("alter_table", {"table": "c", "add": {**add, "default": "now()"}})))
    for row, code in (
        ({"id": 2}, Code.CONSTRAINT),
        ({"id": 9, "c": None}, Code.NOT_NULL),
        ({"a": "y"}, Code.MISSING_COLUMN),
    ):
        refused = writer.between(Sent("append", {"table": "c", "rows": [row]}))
        assert refused.error is not None
        assert refused.error["code"] == code


def test_a_column_before_the_key_is_dropped(writer: OneWriter) -> None:
    """A column can be dropped in any position: rows keep their order; keys, defaults and NOT NULL stay."""
    for drop, rows in itertools.product(("a", "b"), (0, 3)):
        done(*writer.apply(*table("d", ["id"], rows)))
        done(*writer.apply(Sent("alter_table", {"table": "d", "drop": drop})))
        done(*writer.apply(Sent("append", {"table": "d", "rows": [{"id": 7}]})))
        kept = "b" if drop == "a" else "a"
        values = [*range(rows), 5] if kept == "b" else ["x"] * (rows + 1)
        assert writer.rows("SELECT * FROM d") == [
            {"id": i, "b": v} if kept == "b" else {"a": v, "id": i}
            for i, v in zip([*range(rows), 7], values, strict=True)
        ]
        (outcome,) = writer.apply(Sent("append", {"table": "d", "rows": [{"id": 7}]}))
        assert outcome.error is not None
        assert outcome.error["code"] == Code.CONSTRAINT
    manifest = writer.chain.newest()
    assert manifest is not None
    (entry,) = [entry for entry in manifest.tables if entry.name == "d"]
    assert entry.primary_key == ("id",)
    assert not entry.schema["a"].nullable


def _request(draw: random.Random, number: int) -> Sent:
    name = draw.choice(("f", "g"))
    columns = [*"abc", "id", *(f"n{i}" for i in range(number))]
    match draw.randrange(11):
        case 0 | 1 | 2:
            kind, default = draw.choice(ADDED)
            add = {"name": f"n{number}", "type": kind, "nullable": draw.random() < 0.3}
            return Sent("alter_table", {"table": name, "add": add | ({} if default is None else {"default": default})})
        case 3 | 4:
            return Sent("alter_table", {"table": name, "drop": draw.choice(columns)})
        case 5:
            return Sent("alter_table", {"table": name, "rename": {draw.choice(columns): draw.choice(columns)}})
        case 6 | 7:
            return Sent("append", {"table": name, "rows": [{"id": draw.randrange(50)}]})
        case 8:
            statement = f"UPDATE {name} SET {draw.choice(columns)} = {draw.choice(columns)} WHERE id % 2 = 0"
            return Sent("sql", {"statement": statement})
        case 9:
            return Sent("delete", {"table": name, "where": {"id": draw.randrange(50)}})
        case _:
            return Sent("upsert", {"table": name, "rows": [{"id": draw.randrange(50), "b": 1}]})


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_alterations_beside_other_requests(tmp_path: Path, seed: int) -> None:
    """Random alterations beside changes of the same tables: the outcomes do not depend on the batches."""
    draw = random.Random(seed)
    sent = [*table("f", ["id"], 5), *table("g", [], 5), *(_request(draw, number) for number in range(60))]
    results = []
    for name, most in (("one", 1), ("many", 12)):
        writer = OneWriter(tmp_path / name, [{"table": "t", "columns": [{"name": "id", "type": "BIGINT"}]}])
        waiting = list(sent)
        outcomes: list[Outcome] = []
        while waiting:
            count = draw.randint(1, most)
            outcomes += writer.apply(*waiting[:count])
            del waiting[:count]
        codes = [str(o.error["code"]) if o.error else "done" for o in outcomes]
        assert not {Code.INTERNAL, Code.OVER_LIMIT, Code.SET_ASIDE} & set(codes), [o.error for o in outcomes if o.error]
        results.append((codes, [writer.rows(f"SELECT hash(COLUMNS(*)) FROM (SELECT id FROM {t})") for t in "fg"]))
        writer.close()
    assert results[0] == results[1]
