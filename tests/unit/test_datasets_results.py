"""Query results: each DuckDB value in Arrow, Python, Polars and JSON, exactly or refused."""

from __future__ import annotations

import json
import uuid
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pytest

from teatree.contracts.errors import Code, RequestError
from teatree.contracts.formats.codec import dump_json
from teatree.datasets.arrow.types import lossless
from teatree.datasets.dataset import Dataset
from teatree.datasets.fit import fit_table
from teatree.datasets.results.results import exportable, plain_table, result_schema

LAST = datetime(9999, 12, 31)  # noqa: DTZ001 - a wall-clock moment
HUGE_MAX, UHUGE_MAX = 2**127 - 1, 2**128 - 1


def answer(expression: str) -> Dataset:
    """Return a result with one value in a column `x`."""
    with duckdb.connect() as con:
        lossless(con)
        con.execute("SET TimeZone = 'UTC'")
        relation = con.sql(f"SELECT {expression} AS x")
        schema = result_schema(relation)
        table = plain_table(exportable(relation, schema).to_arrow_table(), schema)
        return Dataset.from_arrow(table)


def one(rows: list[dict[str, Any]]) -> Any:
    """Return the only value."""
    return rows[0]["x"]


@pytest.mark.parametrize(
    ("expression", "arrow", "value"),
    [
        ("sum(1)", pa.decimal128(38, 0), 1),
        ("NULL::HUGEINT", pa.decimal128(38, 0), None),
        (f"({10**38 - 1})::HUGEINT", pa.decimal128(38, 0), 10**38 - 1),
        (f"({-(10**38) + 1})::HUGEINT", pa.decimal128(38, 0), -(10**38) + 1),
        (f"({10**38})::HUGEINT", pa.decimal256(39, 0), 10**38),
        (f"({HUGE_MAX})::HUGEINT", pa.decimal256(39, 0), HUGE_MAX),
        (f"({-HUGE_MAX - 1})::HUGEINT", pa.decimal256(39, 0), -HUGE_MAX - 1),
        ("7::UHUGEINT", pa.decimal128(38, 0), 7),
        (f"{UHUGE_MAX}::UHUGEINT", pa.decimal256(39, 0), UHUGE_MAX),
    ],
)
def test_wide_integers_are_numbers(expression: str, arrow: pa.DataType, value: int | None) -> None:
    """HUGEINT is DECIMAL(38,0) in Arrow, DECIMAL(39,0) if a value needs it, int in Python, 128 bits in Polars."""
    found = answer(expression)
    assert found.to_arrow().schema.field("x").type == arrow
    assert found.to_arrow().column(0).to_pylist() == [None if value is None else Decimal(value)]
    assert one(found.rows()) == value
    assert found.to_polars()["x"].to_list() == [value]
    assert str(found.schema.fields[0].dtype) in ("HUGEINT", "UHUGEINT")
    (fitted,) = fit_table(found.to_arrow(), found.schema).column(0).to_pylist()
    signed = "UHUGE" not in expression
    assert value is None or int.from_bytes(fitted, "little", signed=signed) == value


def test_nested_wide_integers_are_numbers() -> None:
    """A HUGEINT within lists, structs and maps is a decimal too, and keeps its type's name."""
    found = answer(f"[{{'a': MAP {{'k': {HUGE_MAX}::HUGEINT}}}}, NULL]")
    assert found.to_arrow().column(0).to_pylist() == [[{"a": [("k", Decimal(HUGE_MAX))]}, None]]
    assert one(found.rows()) == [{"a": [("k", HUGE_MAX)]}, None]
    assert str(found.schema.fields[0].dtype) == "STRUCT(a MAP(VARCHAR, HUGEINT))[]"


@pytest.mark.parametrize(
    ("expression", "python", "polars", "text"),
    [
        ("TIME '24:00:00'", "24:00:00", None, "24:00:00"),
        ("TIME '23:59:59.5'", time(23, 59, 59, 500_000), time(23, 59, 59, 500_000), "23:59:59.500000"),
        ("'24:00:00+02'::TIMETZ", "24:00:00+02:00", "24:00:00+02:00", "24:00:00+02:00"),
        ("'0101'::BIT", "0101", "0101", "0101"),
        ("'infinity'::TIMESTAMP", "infinity", None, "infinity"),
        ("'-infinity'::DATE", "-infinity", None, "-infinity"),
        ("'12345-01-02'::DATE", "+12345-01-02", ..., "+12345-01-02"),
        ("'0044-03-15 (BC)'::DATE", "-0043-03-15", ..., "-0043-03-15"),
        ("'2024-01-01 00:00:00.000000001'::TIMESTAMP_NS", "2024-01-01T00:00:00.000000001", ..., ...),
        ("'10:00:00.000000001'::TIME_NS", "10:00:00.000000001", ..., "10:00:00.000000001"),
        ("'9999-12-31'::TIMESTAMP_S", LAST, LAST, "9999-12-31T00:00:00"),
        ("DATE '2024-02-29'", date(2024, 2, 29), date(2024, 2, 29), "2024-02-29"),
        ("INTERVAL '1 month -2 days 3.5 seconds'", (1, -2, 3_500_000_000), ..., "P1M-2DT3.500000S"),
        ("'00000000-0000-0000-0000-000000000001'::UUID", uuid.UUID(int=1), str(uuid.UUID(int=1)), ...),
        ("'{\"a\": 1.50}'::JSON", '{"a": 1.50}', '{"a": 1.50}', {"a": 1.5}),
    ],
)
def test_odd_values_are_exact_or_refused(expression: str, python: Any, polars: Any, text: Any) -> None:
    """A value that Python cannot represent is JSON's text; one that Polars cannot is refused with a hint."""
    found = answer(expression)
    assert one(found.rows()) == python
    if text is not ...:
        assert one(found.to_json_rows()) == text
    if polars is None:
        with pytest.raises(RequestError) as caught:
            found.to_polars()
        assert (caught.value.code, caught.value.where) == (Code.OUT_OF_RANGE, "x")
    elif polars is not ...:
        assert found.to_polars()["x"].to_list() == [polars]


def test_intervals_are_structs_in_polars() -> None:
    """An INTERVAL is a struct of its three parts in Polars, at any depth, and can be sent back."""
    found = answer("[INTERVAL '1 month -2 days 3.5 seconds', NULL]")
    frame = found.to_polars()
    assert frame["x"].to_list() == [[{"months": 1, "days": -2, "micros": 3_500_000}, None]]
    assert frame.schema["x"] == pl.List(pl.Struct({"months": pl.Int32, "days": pl.Int32, "micros": pl.Int64}))
    again = fit_table(pa.table(frame), found.schema)
    assert again.column(0).to_pylist() == found.to_arrow().column(0).to_pylist()


@pytest.mark.parametrize("sign", ["", "-"])
def test_intervals_beyond_292_years_of_hours_are_refused(sign: str) -> None:
    """An interval whose microseconds Arrow's nanoseconds cannot count is an error, never another interval."""
    within = answer(f"to_microseconds({sign}9223372036854775)")
    assert one(within.rows())[2] == int(f"{sign}9223372036854775000")
    for expression in (f"to_microseconds({sign}9223372036854776)", f"[{{'a': to_hours({sign}3000000)}}]"):
        with pytest.raises(RequestError) as caught:
            answer(expression)
        assert (caught.value.code, caught.value.where) == (Code.OUT_OF_RANGE, "sql")


@pytest.mark.parametrize(
    "expression", ["union_value(a := 1)", "1::VARIANT", "[1::BIGNUM]", "'POINT(1 2)'::GEOMETRY", "{'a': 1::VARIANT}"]
)
def test_types_that_no_result_can_have_are_refused(expression: str) -> None:
    """A type that Arrow has only as DuckDB's internal bytes is refused by name, with a hint."""
    with pytest.raises(RequestError) as caught:
        answer(expression)
    assert caught.value.code == Code.TYPE_MISMATCH
    assert "VARCHAR" in (caught.value.hint or "")


def test_json_keeps_every_digit() -> None:
    """The numbers of a JSON column are numbers in a page and in Python, however many digits they have."""
    text = '{"a": 12345678901234567890123, "b": [0.1, 1.000000000000000000001, 1E400], "c": -0}'
    found = answer(f"'{text}'::JSON")
    value = one(found.to_json_rows())
    assert value == {
        "a": 12345678901234567890123,
        "b": [0.1, Decimal("1.000000000000000000001"), Decimal("1E400")],
        "c": 0,
    }
    assert dump_json(found.to_json_rows(as_written=True)).decode() == f'[{{"x":{text}}}]'
    for odd in ('{"a": NaN}', '{"a": 1, "a": 2}'):  # DuckDB accepts this as JSON, Teatree does not
        written = dump_json(answer(f"'{odd}'::JSON").to_json_rows(as_written=True))
        assert one(json.loads(written)) == odd
