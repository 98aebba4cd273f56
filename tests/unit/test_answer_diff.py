"""What changed from one answer of a query to another one, compared with a count in Python."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from teatree.contracts.formats.codec import dump_json
from teatree.contracts.settings import LimitSettings
from teatree.datasets.answer_diff import diff_answers, is_key
from teatree.datasets.arrow.types import lossless
from teatree.datasets.results.json_values import rows_to_json
from teatree.engine.duckdb.handle import fetch_rows

CELLS = {
    "BIGINT": ("NULL", "0", "1"),
    "DOUBLE": ("NULL", "0.0", "'-0.0'", "'nan'", "1.5"),
    "FLOAT": ("NULL", "0.0", "'-0.0'", "0.1"),
    "VARCHAR": ("NULL", "''", "'NULL'", "'a'"),
    "BOOLEAN": ("NULL", "true", "false"),
    "DECIMAL(5, 2)": ("NULL", "1.50", "-1.50"),
    "HUGEINT": ("NULL", "170141183460469231731687303715884105727", "0"),
    "DATE": ("NULL", "'2020-01-01'", "'infinity'"),
    "TIMESTAMP": ("NULL", "'2020-01-01 00:00:01'", "'1969-01-01'"),
    "TIMESTAMPTZ": ("NULL", "'2020-01-01 00:00:01'", "'1969-01-01'"),
    "TIME": ("NULL", "'10:00'", "'24:00:00'"),
    "UUID": ("NULL", "'00000000-0000-0000-0000-000000000001'"),
    "BLOB": ("NULL", "''", "'a\\xFF'"),
    "BIT": ("NULL", "'0'", "'00'"),
    "INTERVAL": ("NULL", "'1 month'", "'30 days'"),
    "JSON": ("NULL", "'1'", "'1.0'"),
    "ENUM('x', 'y')": ("NULL", "'x'", "'y'"),
    "DOUBLE[]": ("NULL", "[]", "[0.0]", "['-0.0']", "[NULL]"),
    "STRUCT(a VARCHAR, b INTERVAL)": ("NULL", "{'a': NULL, 'b': '1 month'}", "{'a': 'x', 'b': '30 days'}"),
    "MAP(VARCHAR, DOUBLE)": ("NULL", "MAP {}", "MAP {'a': 1.0}", "MAP {'a': NULL}"),
}
"""Values by type, each of them different from the others."""
Rows = list[tuple[str, ...]]


def _rows(kinds: tuple[str, ...]) -> st.SearchStrategy[Rows]:
    return st.lists(st.tuples(*(st.sampled_from(CELLS[kind]) for kind in kinds)), max_size=8)


@pytest.fixture(scope="module")
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    """Return a connection that hands out results as a read worker's does."""
    with duckdb.connect(":memory:") as made:
        lossless(made)
        yield made


def _answer(con: duckdb.DuckDBPyConnection, kinds: tuple[str, ...], rows: Rows) -> pa.Table:
    columns = ", ".join(f"CAST(x{i} AS {kind}) AS c{i}" for i, kind in enumerate(kinds))
    names = ", ".join(f"x{i}" for i in range(len(kinds)))
    nothing = ", ".join("NULL" for _ in kinds)
    values = " UNION ALL ".join(
        "SELECT " + ", ".join(f"CAST({cell} AS {kind})" for cell, kind in zip(row, kinds, strict=True)) for row in rows
    )
    source = f"({values}) t({names})" if rows else f"(SELECT {nothing} WHERE false) t({names})"
    return fetch_rows(con, f"SELECT {columns} FROM {source}", (), LimitSettings())


def _count(rows: pa.Table) -> Counter[bytes]:
    return Counter(dump_json(row) for row in rows_to_json(rows, as_written=True))


@given(data=st.data())
def test_what_is_added_and_removed_turns_one_answer_into_the_other(
    con: duckdb.DuckDBPyConnection, data: st.DataObject
) -> None:
    """As multisets of rows of any types; nothing that both have is in the difference."""
    kinds = tuple(data.draw(st.lists(st.sampled_from(sorted(CELLS)), min_size=1, max_size=3)))
    before, after = (_answer(con, kinds, data.draw(_rows(kinds))) for _ in range(2))
    diff = diff_answers(before, after)
    assert diff.changed.num_rows == 0
    assert _count(diff.removed) == _count(before) - _count(after)
    assert _count(diff.added) == _count(after) - _count(before)


@given(data=st.data())
def test_rows_are_matched_by_key(con: duckdb.DuckDBPyConnection, data: st.DataObject) -> None:
    """A row whose key both answers have is changed, or not in the difference."""
    kinds = ("BIGINT", "VARCHAR", data.draw(st.sampled_from(sorted(CELLS))))
    keys = st.tuples(st.sampled_from(("0", "1", "2")), st.sampled_from(("'a'", "'b'")))
    keyed = st.dictionaries(keys, st.sampled_from(CELLS[kinds[2]]), max_size=6)
    before, after = (_answer(con, kinds, [(*key, cell) for key, cell in data.draw(keyed).items()]) for _ in range(2))
    key = ("c0", "c1")
    assert is_key(before, key)
    assert is_key(after, key)

    def by_key(rows: pa.Table) -> dict[tuple[object, ...], bytes]:
        return {(row["c0"], row["c1"]): dump_json(row) for row in rows_to_json(rows, as_written=True)}

    diff = diff_answers(before, after, key)
    old, new = by_key(before), by_key(after)
    assert by_key(diff.added) == {k: row for k, row in new.items() if k not in old}
    assert by_key(diff.removed) == {k: row for k, row in old.items() if k not in new}
    assert by_key(diff.changed) == {k: row for k, row in new.items() if k in old and old[k] != row}
    assert diff.rows == len(by_key(diff.added)) + len(by_key(diff.removed)) + len(by_key(diff.changed))


def test_a_key_is_unique_and_not_null(con: duckdb.DuckDBPyConnection) -> None:
    """Columns that repeat, hold NULL, or are not there identify no rows."""
    rows = con.sql("SELECT * FROM (VALUES (1, 1, 1), (1, 2, NULL)) t(a, b, c)").to_arrow_table()
    assert is_key(rows, ("b",))
    assert is_key(rows, ("a", "b"))
    for key in (("a",), ("c",), ("d",), ()):
        assert not is_key(rows, key)
    assert is_key(rows.slice(0, 0), ("a",))
    assert not is_key(rows.rename_columns(["a", "b", "b"]), ("b",))
