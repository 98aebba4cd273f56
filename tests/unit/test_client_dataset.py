"""The rows that `query` returns."""

from __future__ import annotations

from decimal import Decimal

import polars as pl
import pyarrow as pa
import pytest

from teatree import Dataset, Field, RequestError, Schema
from teatree.contracts.types.schema import parse_dtype


def schema_of(**columns: str) -> Schema:
    """Return a schema of names and types."""
    return Schema(tuple(Field(name, parse_dtype(kind, "type")) for name, kind in columns.items()))


def test_rows_of_json_come_back_with_every_digit() -> None:
    """JSON values become columns of the schema's types; a missing column is NULL."""
    schema = schema_of(id="BIGINT", amount="DECIMAL(18,2)", kind="ENUM('a', 'b')")
    found = Dataset.from_rows([{"id": 1, "amount": "0.10", "kind": "b"}, {"id": 2}], schema)
    assert found.rows() == [
        {"id": 1, "amount": Decimal("0.10"), "kind": "b"},
        {"id": 2, "amount": None, "kind": None},
    ]
    assert found.to_rows() == found.rows()
    assert found.to_json_rows()[0] == {"id": 1, "amount": 0.1, "kind": "b"}
    assert (len(found), found.schema) == (2, schema)
    assert repr(found).startswith("Dataset(2 rows: id BIGINT, ")


def test_arrow_libraries_read_it() -> None:
    """Pyarrow and Polars read a dataset, and a dataset reads them."""
    found = Dataset.from_arrow(pl.DataFrame({"id": [1, 2]}))
    assert pa.table(found).to_pydict() == {"id": [1, 2]}
    assert pl.DataFrame(found).equals(found.to_polars())
    assert Dataset.from_arrow(found).schema == found.schema


def test_pandas_reads_it_without_loss() -> None:
    """A pandas frame has every digit of a nullable column; UUID and JSON are texts."""
    pytest.importorskip("pandas")
    schema = schema_of(n="BIGINT", d="DECIMAL(18,2)", u="UUID", j="JSON", at="TIMESTAMPTZ", e="ENUM('a')")
    row = {"n": 2**60 + 1, "d": "0.10", "u": "01234567-89ab-cdef-0123-456789abcdef", "j": [1], "e": "a"}
    frame = Dataset.from_rows([{**row, "at": "2026-01-01T00:00:00Z"}, {}], schema).to_pandas()
    assert [str(value) for value in frame.iloc[0]] == [
        str(2**60 + 1),
        "0.10",
        "01234567-89ab-cdef-0123-456789abcdef",
        "[1]",
        "2026-01-01 00:00:00+00:00",
        "a",
    ]
    assert frame.isna().all(axis=1).tolist() == [False, True]
    assert list(Dataset.from_rows([], schema).to_pandas().columns) == list(schema.names)


def test_sums_are_numbers_everywhere() -> None:
    """HUGEINT, which every sum of integers is, has its value in Python, JSON and Polars."""
    found = Dataset.from_rows([{"n": str(2**100), "m": 5}, {"n": -1}], schema_of(n="HUGEINT", m="HUGEINT"))
    assert found.rows() == [{"n": 2**100, "m": 5}, {"n": -1, "m": None}]
    assert found.to_json_rows() == [{"n": str(2**100), "m": 5}, {"n": -1, "m": None}]
    assert found.to_polars().to_dicts() == found.rows()


def test_no_rows_keep_their_columns() -> None:
    """An empty result still has its columns."""
    assert Dataset.from_rows([], schema_of(id="BIGINT")).to_arrow().column_names == ["id"]


def test_a_wrong_row_is_named() -> None:
    """The error names the value and the row."""
    with pytest.raises(RequestError) as caught:
        Dataset.from_rows([{"id": 1}, {"id": "x"}], schema_of(id="BIGINT"))
    assert caught.value.where == "rows[1].id"
