"""The difference of two tables, compared with a count in Python."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from teatree.datasets.table_diff import Change, Presence, TableDiff, diff_table, read_tables

CELLS = {
    "BIGINT": ("NULL", "0", "1"),
    "DOUBLE": ("NULL", "0.0", "'-0.0'", "'nan'", "1.5"),
    "INTERVAL": ("NULL", "'1 month'", "'30 days'"),
    "VARCHAR": ("NULL", "''", "'NULL'", "'a'"),
    "DOUBLE[]": ("NULL", "[]", "[0.0]", "['-0.0']", "[NULL]"),
    "STRUCT(a VARCHAR, b INTERVAL)": ("NULL", "{'a': NULL, 'b': '1 month'}", "{'a': 'x', 'b': '30 days'}"),
}
"""Values by type, each of them different from the others."""
TYPES = tuple(CELLS)

Rows = list[tuple[str, ...]]


def _rows(kinds: tuple[str, ...]) -> st.SearchStrategy[Rows]:
    return st.lists(st.tuples(*(st.sampled_from(CELLS[kind]) for kind in kinds)), max_size=8)


def _keyed_rows(kinds: tuple[str, ...]) -> st.SearchStrategy[Rows]:
    keys = st.sampled_from(("0", "1", "2", "3", "4"))
    rows = st.lists(st.tuples(keys, *(st.sampled_from(CELLS[kind]) for kind in kinds)), max_size=5)
    return rows.map(lambda found: list({row[0]: row for row in found}.values()))


@pytest.fixture(scope="module")
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    """Return a connection with the two sides as databases."""
    with duckdb.connect(":memory:") as made:
        made.execute("ATTACH ':memory:' AS old")
        made.execute("ATTACH ':memory:' AS new")
        yield made


def _fill(con: duckdb.DuckDBPyConnection, side: str, columns: list[str], rows: Rows) -> None:
    con.execute(f"CREATE OR REPLACE TABLE {side}.t({', '.join(columns)})")
    if rows:
        values = ", ".join("(" + ", ".join(row) + ")" for row in rows)
        con.execute(f"INSERT INTO {side}.t VALUES {values}")


def _diff(con: duckdb.DuckDBPyConnection, rows_max: int = 100) -> TableDiff:
    old, new = (read_tables(con, side)["t"] for side in ("old", "new"))
    return diff_table(con, ("old", old), ("new", new), rows_max)


def _counts(found: TableDiff) -> tuple[int, int, int]:
    shown = Counter(row.change for row in found.rows)
    counts = (found.rows_added, found.rows_removed, found.rows_changed)
    assert tuple(shown[change] for change in Change) == counts
    return counts


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_rows_without_a_key_are_a_multiset_difference(con: duckdb.DuckDBPyConnection, data: st.DataObject) -> None:
    """Duplicates count, NULL equals NULL, and different values are never equal."""
    kinds = tuple(data.draw(st.lists(st.sampled_from(TYPES), min_size=1, max_size=3)))
    old, new = data.draw(_rows(kinds)), data.draw(_rows(kinds))
    columns = [f"c{i} {kind}" for i, kind in enumerate(kinds)]
    _fill(con, "old", columns, old)
    _fill(con, "new", columns, new)
    before, after = Counter(old), Counter(new)
    assert _counts(_diff(con)) == ((after - before).total(), (before - after).total(), 0)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_rows_with_a_key_are_added_removed_or_changed(con: duckdb.DuckDBPyConnection, data: st.DataObject) -> None:
    """A row is changed if its key is on both sides and any other value differs."""
    kinds = tuple(data.draw(st.lists(st.sampled_from(TYPES), max_size=3)))
    old, new = data.draw(_keyed_rows(kinds)), data.draw(_keyed_rows(kinds))
    columns = ["id BIGINT PRIMARY KEY", *(f"c{i} {kind}" for i, kind in enumerate(kinds))]
    _fill(con, "old", columns, old)
    _fill(con, "new", columns, new)
    before, after = ({row[0]: row for row in rows} for rows in (old, new))
    common = before.keys() & after.keys()
    changed = sum(before[key] != after[key] for key in common)
    found = _diff(con)
    assert found.key == ("id",)
    assert _counts(found) == (len(after) - len(common), len(before) - len(common), changed)
    for row in found.rows:
        if row.change is Change.CHANGED:
            assert row.before is not None
            assert row.after is not None
            assert (row.before["id"], row.before != row.after) == (row.after["id"], True)


@given(old=_keyed_rows(("VARCHAR", "BIGINT")), new=_keyed_rows(("BIGINT", "VARCHAR")))
@settings(max_examples=40, deadline=None)
def test_a_column_that_one_side_has_not_is_null_there(con: duckdb.DuckDBPyConnection, old: Rows, new: Rows) -> None:
    """Columns are matched by name; a dropped or added column with a value changes its row."""
    _fill(con, "old", ["id BIGINT PRIMARY KEY", "gone VARCHAR", "B BIGINT"], old)
    _fill(con, "new", ["id BIGINT PRIMARY KEY", "b BIGINT", "come VARCHAR"], new)
    before = {key: (b, gone, "NULL") for key, gone, b in old}
    after = {key: (b, "NULL", come) for key, b, come in new}
    changed = sum(before[key] != after[key] for key in before.keys() & after.keys())
    found = _diff(con)
    assert found.rows_changed == changed
    assert [(c.what, c.column) for c in found.schema] == [("column dropped", "gone"), ("column added", "come")]


def _changes(found: TableDiff) -> list[tuple[Any, ...]]:
    return [(c.what, c.column, c.before, c.after) for c in found.schema]


def test_changes_of_the_schema_are_reported(con: duckdb.DuckDBPyConnection) -> None:
    """Types, defaults, NOT NULL and keys; values of a column whose type changed are compared as texts."""
    _fill(
        con, "old", ["id BIGINT", "a INTEGER", "b VARCHAR", "c DATE DEFAULT '2024-01-01'"], [("1", "7", "'x'", "NULL")]
    )
    _fill(
        con, "new", ["id BIGINT PRIMARY KEY", "a BIGINT", "b VARCHAR NOT NULL", "c DATE"], [("1", "7", "'x'", "NULL")]
    )
    found = _diff(con)
    assert _changes(found) == [
        ("nullable", "id", "true", "false"),
        ("type", "a", "INTEGER", "BIGINT"),
        ("nullable", "b", "true", "false"),
        ("default", "c", "'2024-01-01'", None),
        ("primary key", None, None, "id"),
    ]
    assert (_counts(found), found.key) == ((0, 0, 0), ())
    con.execute("UPDATE new.t SET a = 8")
    assert _counts(_diff(con)) == (1, 1, 0)


def test_a_table_on_one_side_is_added_or_dropped_whole(con: duckdb.DuckDBPyConnection) -> None:
    """All its rows are added or removed, some of them are shown."""
    _fill(con, "new", ["x INTEGER", '"odd ""name" VARCHAR'], [("1", "NULL"), ("2", "'b'")])
    table = read_tables(con, "new")["t"]
    added = diff_table(con, None, ("new", table), 1)
    assert (added.presence, added.rows_added, added.rows_removed) == (Presence.ADDED, 2, 0)
    assert [row.after for row in added.rows] == [{"x": "1", 'odd "name': None}]
    dropped = diff_table(con, ("new", table), None)
    assert (dropped.presence, dropped.rows_added, dropped.rows_removed, dropped.rows) == (Presence.DROPPED, 0, 2, ())


def test_keys_of_several_columns_and_odd_names(con: duckdb.DuckDBPyConnection) -> None:
    """Keys match in any order of columns, and are shown in the order of the key."""
    _fill(
        con,
        "old",
        ["a INTEGER", '"b c" VARCHAR', "v INTEGER", 'PRIMARY KEY ("b c", a)'],
        [("1", "'x'", "1"), ("2", "'x'", "1")],
    )
    _fill(
        con,
        "new",
        ["v INTEGER", '"B C" VARCHAR', "A INTEGER", 'PRIMARY KEY (A, "B C")'],
        [("2", "'x'", "1"), ("3", "'x'", "2")],
    )
    found = _diff(con)
    assert (found.key, _counts(found)) == (("A", "B C"), (0, 0, 2))
    assert [row.after for row in found.rows] == [{"v": "2", "B C": "x", "A": "1"}, {"v": "3", "B C": "x", "A": "2"}]


def test_other_schemas_are_compared_and_the_internal_one_is_not(con: duckdb.DuckDBPyConnection) -> None:
    """Tables have their qualified names; Teatree's internal tables are not compared."""
    con.execute("CREATE SCHEMA old.planning")
    con.execute("CREATE TABLE old.planning.Goals(x INTEGER)")
    con.execute("CREATE SCHEMA old._teatree")
    con.execute("CREATE TABLE old._teatree.commits(x INTEGER)")
    con.execute("CREATE VIEW old.seen AS SELECT 1 AS x")
    tables = read_tables(con, "old")
    assert {name for name in tables if name != "t"} == {"planning.goals"}
    assert tables["planning.goals"].title == "planning.Goals"
