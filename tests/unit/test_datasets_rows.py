"""Rows as JSON: every value is stored exactly, or refused at its place, and is returned as it was sent."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Iterator
from decimal import Decimal as Number
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_schema import DTYPES

from teatree.contracts.errors import Code, RequestError
from teatree.contracts.formats.codec import dump_json, parse_json
from teatree.contracts.types.dtypes import (
    Array,
    Bit,
    Blob,
    Boolean,
    Date,
    Decimal,
    Dtype,
    Enum,
    Float,
    Integer,
    Interval,
    Json,
    List,
    Map,
    Struct,
    Time,
    Timestamp,
    TimeTz,
    Uuid,
    Varchar,
)
from teatree.contracts.types.schema import Field, Schema, parse_dtype
from teatree.contracts.types.table_info import TableInfo
from teatree.datasets import iso
from teatree.datasets.arrow.types import from_arrow_schema, lossless, to_arrow_schema
from teatree.datasets.catalog_tables import read_table
from teatree.datasets.ddl import create_table_sql, quote
from teatree.datasets.defaults import default_sql
from teatree.datasets.results.json_values import columns_to_json, rows_to_json
from teatree.datasets.results.results import exportable, plain_table, result_schema
from teatree.datasets.rows import RowDecoder

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
JSON_VALUES = st.recursive(
    st.one_of(st.booleans(), st.integers(-(2**53), 2**53), st.decimals(-10, 10, places=3), TEXT),
    lambda inner: st.one_of(st.lists(st.none() | inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=4,
)


def values_of(dtype: Dtype) -> st.SearchStrategy[Any]:
    """Return JSON values of a type, as `parse_json` returns them."""
    match dtype:
        case Boolean():
            return st.booleans()
        case Integer():
            return st.integers(dtype.minimum, dtype.maximum)
        case Float(bits=bits):
            finite = st.floats(width=32 if bits == 32 else 64, allow_nan=False, allow_infinity=False)
            return finite.map(lambda v: Number(repr(v))) | st.sampled_from(["NaN", "Infinity", "-Infinity"])
        case Decimal(precision=precision, scale=scale):
            return st.integers(1 - 10**precision, 10**precision - 1).map(lambda v: Number(f"{v}E-{scale}"))
        case Varchar():
            return TEXT
        case Blob():
            return st.binary(max_size=8).map(lambda v: base64.b64encode(v).decode())
        case Bit():
            return st.text("01", min_size=1, max_size=20)
        case Date():
            days = st.integers(iso.DATE_MIN, iso.DATE_MAX) | st.integers(-800_000, 3_000_000)
            return days.map(iso.format_date) | st.sampled_from(["infinity", "-infinity"])
        case Time(unit=unit):
            return st.integers(0, 86_400 * iso.PER_SECOND[unit] - 1).map(lambda v: iso.format_time(v, unit))
        case TimeTz():
            offsets = st.integers(-iso.OFFSET_SECONDS_MAX, iso.OFFSET_SECONDS_MAX)
            return st.builds(iso.format_time_tz, st.integers(0, 86_400_000_000 - 1), offsets)
        case Timestamp(unit=unit, tz=tz):
            counts = st.integers(*iso.timestamp_range(unit))
            return counts.map(lambda v: iso.format_timestamp(v, unit, tz=tz))
        case Interval():
            parts = (st.integers(1 - 2**31, 2**31 - 1), st.integers(1 - 2**31, 2**31 - 1), st.integers(-(2**53), 2**53))
            return st.builds(iso.format_duration, *parts)
        case Uuid():
            return st.uuids().map(str)
        case Json():
            return JSON_VALUES
        case Enum(values=members):
            return st.sampled_from(members)
        case List(of=of):
            return st.lists(st.none() | values_of(of), max_size=3)
        case Array(of=of, length=length):
            return st.lists(st.none() | values_of(of), min_size=length, max_size=length)
        case Struct(fields=fields):
            return st.fixed_dictionaries({f.name: st.none() | values_of(f.dtype) for f in fields})
        case Map(key=key, value=value):
            pairs = st.tuples(values_of(key), st.none() | values_of(value)).map(list)
            return st.lists(pairs, max_size=3, unique_by=lambda pair: repr(pair[0]))
    raise AssertionError(dtype)


@pytest.fixture
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a database that returns Arrow data without loss."""
    with duckdb.connect() as con:
        lossless(con)
        con.execute("SET TimeZone = 'UTC'").fetchall()
        yield con


def through_duckdb(con: duckdb.DuckDBPyConnection, table: pa.Table, schema: Schema) -> pa.Table:
    """Insert rows into a new table of this schema, check its schema, and return what it holds."""
    con.execute("DROP TABLE IF EXISTS t").fetchall()
    con.execute(create_table_sql("t", schema)).fetchall()
    assert read_table(con, "T").schema == schema
    con.register("sent", table)
    columns = ", ".join(map(quote, table.column_names))
    con.execute(f"INSERT INTO t ({columns}) SELECT {columns} FROM sent").fetchall()
    con.unregister("sent")
    relation = con.sql("FROM t")
    found = result_schema(relation)
    assert [f.dtype for f in found] == [f.dtype for f in schema]
    return plain_table(exportable(relation, found).to_arrow_table(), found)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_values_round_trip(data: st.DataObject) -> None:
    """Every value of every type is converted from JSON to Arrow, DuckDB, Arrow and JSON, twice, without change."""
    dtype = data.draw(DTYPES)
    schema = Schema((Field("c", dtype),))
    rows = [{"c": v} for v in data.draw(st.lists(st.none() | values_of(dtype), min_size=1, max_size=4))]
    decoder = RowDecoder(schema)
    try:
        groups = decoder.decode(rows)
    except RequestError as e:
        assert e.code == Code.DUPLICATE_KEY  # noqa: PT017 - keys of a MAP may be equal only once they are converted
        return
    table = decoder.to_table(groups)
    table.validate(full=True)
    assert table.schema.equals(to_arrow_schema(schema), check_metadata=True)
    assert from_arrow_schema(table.schema) == schema
    with duckdb.connect() as con:  # a new one each time: an error makes it unusable
        lossless(con)
        back = through_duckdb(con, table, schema)
    found = rows_to_json(back, schema)
    assert found == rows_to_json(table, schema)
    again = parse_json(dump_json(rows_to_json(back, schema, as_written=True)))
    assert rows_to_json(decoder.to_table(decoder.decode(again)), schema) == found


def one(kind: str, value: Any, *, nullable: bool = True) -> Any:
    """Return one value after its conversion to Arrow."""
    schema = Schema((Field("c", parse_dtype(kind), nullable=nullable),))
    decoder = RowDecoder(schema)
    body = value if isinstance(value, bytes) else dump_json(value)
    return rows_to_json(decoder.to_table(decoder.decode([{"c": parse_json(body)}])), schema)[0]["c"]


@pytest.mark.parametrize(
    ("kind", "sent", "expected"),
    [
        ("INTEGER", b"2.0", 2),
        ("INTEGER", b"2e3", 2000),
        ("BIGINT", b"9007199254740993", "9007199254740993"),
        ("BIGINT", b'"9007199254740993"', "9007199254740993"),
        ("HUGEINT", b"170141183460469231731687303715884105727", "170141183460469231731687303715884105727"),
        ("DOUBLE", b"0.1", 0.1),
        ("DOUBLE", b"7", 7.0),
        ("DOUBLE", b'"NaN"', "NaN"),
        ("FLOAT", b"0.1", 0.1),
        ("DECIMAL(5,2)", b"1.50", 1.5),
        ("DECIMAL(5,2)", b'"1.5"', 1.5),
        ("DECIMAL(38,10)", b"12345678901234567890.0123456789", "12345678901234567890.0123456789"),
        ("VARCHAR", '"ä\\u0000\\ud83d\\ude00"'.encode(), "ä\0😀"),
        ("DATE", b'"2020-02-29"', "2020-02-29"),
        ("TIME", b'"10:11"', "10:11:00"),
        ("TIME", b'"24:00:00.0"', "24:00:00"),
        ("TIMETZ", b'"24:00:00+01:00"', "24:00:00+01:00"),
        ("FLOAT", b"-0", -0.0),
        ("TIME", b'"10:11:12.5000000"', "10:11:12.500000"),
        ("TIMESTAMP", b'"2020-01-01 10:11:12"', "2020-01-01T10:11:12"),
        ("TIMESTAMP", b'"2020-01-01"', "2020-01-01T00:00:00"),
        ("TIMESTAMP_S", b'"2020-01-01T10:11:12.000"', "2020-01-01T10:11:12"),
        ("TIMESTAMPTZ", b'"2020-01-01T10:11:12+01:00"', "2020-01-01T09:11:12Z"),
        ("TIMESTAMPTZ", b'"2020-01-01T10:11:12.5-0330"', "2020-01-01T13:41:12.500000Z"),
        ("UUID", b'"00112233445566778899AABBCCDDEEFF"', str(uuid.UUID(int=0x00112233445566778899AABBCCDDEEFF))),
        ("BLOB", b'"AP8="', "AP8="),
        ("INTERVAL", b'"P1Y2M1W3DT4H5M6.5S"', "P14M10DT14706.500000S"),
        ("INTERVAL", b'{"months": -1, "micros": 5}', "P-1MT0.000005S"),
        ("JSON", b'{"a": [1.10, 18446744073709551616, "x", null]}', {"a": [1.1, 18446744073709551616, "x", None]}),
        ("JSON", b'"x"', "x"),
        ("MAP(VARCHAR, INTEGER)", b'{"a": 1}', {"a": 1}),
        ("MAP(INTEGER, VARCHAR)", b'[[1, "a"]]', [[1, "a"]]),
        ("STRUCT(a INTEGER, b VARCHAR)", b'{"A": 1}', {"a": 1, "b": None}),
    ],
)
def test_values_are_exact(kind: str, sent: bytes, expected: Any) -> None:
    """A value is returned exactly; a number that a double would round is returned as a string."""
    assert one(kind, sent) == expected


@pytest.mark.parametrize(
    ("kind", "sent", "code"),
    [
        ("INTEGER", b"1.9", Code.LOSSY_NUMBER),
        ("INTEGER", b"2147483648", Code.OUT_OF_RANGE),
        ("INTEGER", b"1e400", Code.OUT_OF_RANGE),
        ("INTEGER", b"1e-400", Code.LOSSY_NUMBER),
        ("INTEGER", b'"1"', Code.TYPE_MISMATCH),
        ("INTEGER", b"true", Code.TYPE_MISMATCH),
        ("UTINYINT", b"-1", Code.OUT_OF_RANGE),
        ("UHUGEINT", b"-1", Code.OUT_OF_RANGE),
        ("BIGINT", b'"1.5"', Code.TYPE_MISMATCH),
        ("DOUBLE", b"9007199254740993", Code.LOSSY_NUMBER),
        ("DOUBLE", b"1e400", Code.OUT_OF_RANGE),
        ("DOUBLE", b"1" + b"0" * 350, Code.OUT_OF_RANGE),
        ("DOUBLE", b'"1.5"', Code.TYPE_MISMATCH),
        ("FLOAT", b"16777217", Code.LOSSY_NUMBER),
        ("FLOAT", b"1e39", Code.OUT_OF_RANGE),
        ("DECIMAL(5,2)", b"1.555", Code.LOSSY_NUMBER),
        ("DECIMAL(5,2)", b"1000", Code.OUT_OF_RANGE),
        ("DECIMAL(5,2)", b'"x"', Code.TYPE_MISMATCH),
        ("BOOLEAN", b"1", Code.TYPE_MISMATCH),
        ("BOOLEAN", b'"true"', Code.TYPE_MISMATCH),
        ("VARCHAR", b"1", Code.TYPE_MISMATCH),
        ("VARCHAR", b'"\\ud800"', Code.TYPE_MISMATCH),
        ("JSON", b'{"a": "\\ud800"}', Code.TYPE_MISMATCH),
        ("JSON", b"[" * 300 + b"]" * 300, Code.TYPE_MISMATCH),
        ("DATE", b'"2021-02-29"', Code.TYPE_MISMATCH),
        ("DATE", b'"2021-02-28T00:00:00"', Code.TYPE_MISMATCH),
        ("DATE", b'"+6000000-01-01"', Code.OUT_OF_RANGE),
        ("DATE", b"20210228", Code.TYPE_MISMATCH),
        ("TIME", b'"24:00:01"', Code.TYPE_MISMATCH),
        ("TIMETZ", b'"02:42:47-05:0614"', Code.TYPE_MISMATCH),
        ("TIME", b'"24:00:00.1"', Code.TYPE_MISMATCH),
        ("TIME", b'"10:00:00Z"', Code.TYPE_MISMATCH),
        ("TIME", b'"10:00:00.0000001"', Code.TYPE_MISMATCH),
        ("TIMESTAMP", b'"2020-01-01T10:11:12Z"', Code.TYPE_MISMATCH),
        ("TIMESTAMP_S", b'"2020-01-01T10:11:12.5"', Code.TYPE_MISMATCH),
        ("TIMESTAMP_NS", b'"2500-01-01T00:00:00"', Code.OUT_OF_RANGE),
        ("TIMESTAMP_S", b'"+300000-01-01T00:00:00"', Code.OUT_OF_RANGE),
        ("TIMESTAMPTZ", b'"2020-01-01T10:11:12"', Code.TYPE_MISMATCH),
        ("UUID", b'"0011223344556677 8899AABBCCDDEEF"', Code.TYPE_MISMATCH),
        ("BLOB", b'"AP8"', Code.TYPE_MISMATCH),
        ("BIT", b'"2"', Code.TYPE_MISMATCH),
        ("INTERVAL", b'"P"', Code.TYPE_MISMATCH),
        ("INTERVAL", b'{"years": 1}', Code.TYPE_MISMATCH),
        ("INTERVAL", b'{"micros": 9300000000000000}', Code.OUT_OF_RANGE),
        ("ENUM('a')", b'"b"', Code.TYPE_MISMATCH),
        ("INTEGER[2]", b"[1]", Code.TYPE_MISMATCH),
        ("MAP(INTEGER, VARCHAR)", b'[[1, "a"], [1.0, "b"]]', Code.DUPLICATE_KEY),
        ("MAP(INTEGER, VARCHAR)", b'[[null, "a"]]', Code.NOT_NULL),
        ("STRUCT(a INTEGER)", b'{"a": 1, "A": 2}', Code.DUPLICATE_KEY),
    ],
)
def test_values_are_refused(kind: str, sent: bytes, code: Code) -> None:
    """A value that the type cannot hold exactly is refused, at its row and column."""
    schema = Schema((Field("c", parse_dtype(kind)),))
    with pytest.raises(RequestError) as caught:
        RowDecoder(schema).decode([{"c": None}, {"C": parse_json(sent)}])
    assert caught.value.code == code
    assert caught.value.where is not None
    assert caught.value.where.startswith("rows[1].C")


def test_nested_places() -> None:
    """A refusal within a nested value names its path."""
    schema = Schema((Field("c", parse_dtype("STRUCT(tags MAP(VARCHAR, INTEGER)[])")),))
    with pytest.raises(RequestError) as caught:
        RowDecoder(schema).decode([{"c": {"tags": [{}, {"x": 1, "y": "no"}]}}], "body.rows")
    assert caught.value.where == "body.rows[0].c.tags[1].y"


SALES = Schema(
    (
        Field("id", parse_dtype("BIGINT"), nullable=False),
        Field("note", parse_dtype("VARCHAR")),
        Field("at", parse_dtype("DATE"), nullable=False, default="CAST('2020-01-01' AS DATE)"),
    )
)


def test_groups(con: duckdb.DuckDBPyConnection) -> None:
    """Rows are grouped by the columns that they leave to defaults; other missing columns are NULL."""
    decoder = RowDecoder(SALES)
    first = decoder.decode([{"ID": 1}, {"note": "x", "id": 2}, {"id": 3, "at": "2021-01-01"}])
    assert [(group.columns, len(group.rows)) for group in first] == [(("id", "note"), 2), (("id", "note", "at"), 1)]
    second = decoder.decode([{"id": 4, "note": None}])
    stored = through_duckdb(con, decoder.to_table([first[0], second[0]]), SALES)
    assert rows_to_json(stored, SALES) == [
        {"id": 1, "note": None, "at": "2020-01-01"},
        {"id": 2, "note": "x", "at": "2020-01-01"},
        {"id": 4, "note": None, "at": "2020-01-01"},
    ]
    (only,) = RowDecoder(SALES, fill=False).decode([{"id": 1}])
    assert only.columns == ("id",)
    assert decoder.decode([]) == []


@pytest.mark.parametrize(
    ("rows", "code", "where"),
    [
        ({}, Code.BAD_ARGUMENT, "rows"),
        ([1], Code.BAD_ARGUMENT, "rows[0]"),
        ([{"id": 1}, []], Code.BAD_ARGUMENT, "rows[1]"),
        ([{"id": 1, "x": 1}], Code.UNKNOWN_COLUMN, "rows[0].x"),
        ([{"id": 1}, {"note": "x"}], Code.MISSING_COLUMN, "rows[1].id"),
        ([{"id": None}], Code.NOT_NULL, "rows[0].id"),
        ([{"id": 1, "at": None}], Code.NOT_NULL, "rows[0].at"),
        ([{"id": 1, "ID": 1}], Code.DUPLICATE_KEY, "rows[0].ID"),
    ],
)
def test_rows_are_refused(rows: Any, code: Code, where: str) -> None:
    """An error of a row names its place."""
    with pytest.raises(RequestError) as caught:
        RowDecoder(SALES).decode(rows)
    assert (caught.value.code, caught.value.where) == (code, where)


def test_many_sets_of_keys_cost_no_memory() -> None:
    """A sender with ever new orders of keys does not fill the memory."""
    schema = Schema(tuple(Field(f"c{i}", parse_dtype("INTEGER")) for i in range(200)))
    decoder = RowDecoder(schema)
    for i in range(1200):
        (group,) = decoder.decode([{f"c{i % 200}": 1, f"c{(i + 1 + i // 200) % 200}": 1}])
        assert len(group.columns) == 200
    assert len(decoder._plans) <= 1000


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("INTEGER", 5, 5),
        ("INTEGER", None, None),
        ("DECIMAL(10,2)", Number("-1.5"), -1.5),
        ("DOUBLE", "NaN", "NaN"),
        ("VARCHAR", "it's; DROP TABLE t --", "it's; DROP TABLE t --"),
        ("VARCHAR", "now()", "now()"),
        ("ENUM('a', 'it''s')", "it's", "it's"),
        ("BLOB", "AP8=", "AP8="),
        ("INTERVAL", "P1M-2DT3.5S", "P1M-2DT3.500000S"),
        ("JSON", {"a": "it's"}, {"a": "it's"}),
        ("VARCHAR[]", ["a'b", None], ["a'b", None]),
        ("TIMESTAMPTZ", "2020-01-01T00:00:00Z", "2020-01-01T00:00:00Z"),
        ("HUGEINT", str(-(2**127)), str(-(2**127))),
        ("DATE", "infinity", "infinity"),
        ("BIT", "0101", "0101"),
        ("TIMETZ", "10:00:00+01:00", "10:00:00+01:00"),
    ],
)
def test_defaults(con: duckdb.DuckDBPyConnection, kind: str, value: Any, expected: Any) -> None:
    """A default is a value, never SQL, and is kept by a table that is created from the schema as read."""
    schema = Schema(
        (Field("id", Integer()), Field("c", parse_dtype(kind), default=default_sql(value, parse_dtype(kind))))
    )
    for _ in range(2):
        con.execute("DROP TABLE IF EXISTS d").fetchall()
        con.execute(create_table_sql("d", schema)).fetchall()
        con.execute("INSERT INTO d (id) VALUES (1)").fetchall()
        assert rows_to_json(con.sql("FROM d").to_arrow_table(), schema)[0]["c"] == expected
        schema = read_table(con, "d").schema


def test_default_expressions(con: duckdb.DuckDBPyConnection) -> None:
    """The few expressions that a default may have are computed for each row."""
    for text, kind in (
        ("now()", "TIMESTAMPTZ"),
        ("current_date", "DATE"),
        ("uuid()", "UUID"),
        ("NOW()", "TIMESTAMP_S"),
    ):
        schema = Schema(
            (Field("id", Integer()), Field("c", parse_dtype(kind), default=default_sql(text, parse_dtype(kind))))
        )
        con.execute("DROP TABLE IF EXISTS d").fetchall()
        con.execute(create_table_sql("d", schema)).fetchall()
        con.execute("INSERT INTO d (id) VALUES (1)").fetchall()
        assert con.execute("SELECT c IS NOT NULL FROM d").fetchall() == [(True,)]
    for value, kind, code in (
        ("random()", "DOUBLE", Code.TYPE_MISMATCH),
        ("now()", "INTEGER", Code.TYPE_MISMATCH),
        ({"a": 1}, "STRUCT(a INTEGER)", Code.BAD_ARGUMENT),
        ("+20000-01-01", "DATE", Code.OUT_OF_RANGE),
    ):
        with pytest.raises(RequestError) as caught:
            default_sql(value, parse_dtype(kind), "columns[0].default")
        assert (caught.value.code, caught.value.where) == (code, "columns[0].default")


@pytest.mark.parametrize("name", ["a", 'a"b', "select", "a b", "ä", "a;b", "a--b", "x" * 200])
def test_names_are_quoted(con: duckdb.DuckDBPyConnection, name: str) -> None:
    """An allowed name is never interpreted as SQL."""
    schema = Schema((Field(name, Integer(), nullable=False), Field("other", Varchar())))
    con.execute(f"DROP TABLE IF EXISTS {quote(name)}").fetchall()
    con.execute(create_table_sql(name, schema, [name.upper() if name == "a" else name])).fetchall()
    assert read_table(con, name) == TableInfo(name, schema, (name,))
    con.execute(f"DROP TABLE {quote(name)}").fetchall()


def test_results(con: duckdb.DuckDBPyConnection) -> None:
    """A result's columns are described by their types; a type that JSON cannot represent is refused in a sentence."""
    relation = con.sql("SELECT 1 AS a, NULL AS b, [true] AS c, 'x'::ENUM('x') AS d, sum(1) AS e")
    schema = result_schema(relation)
    table = plain_table(exportable(relation, schema).to_arrow_table(), schema)
    assert columns_to_json(schema) == [
        {"name": "a", "type": "INTEGER"},
        {"name": "b", "type": "INTEGER"},
        {"name": "c", "type": "BOOLEAN[]"},
        {"name": "d", "type": "ENUM('x')"},
        {"name": "e", "type": "HUGEINT"},
    ]
    assert rows_to_json(table) == [{"a": 1, "b": None, "c": [True], "d": "x", "e": 1}]
    assert rows_to_json(table.slice(0, 0)) == []
    other = con.sql("SELECT union_value(a := 1) AS u")
    with pytest.raises(RequestError) as caught:
        result_schema(other)
    assert caught.value.code == Code.TYPE_MISMATCH
    with pytest.raises(RequestError) as twice:
        from_arrow_schema(con.sql("SELECT 1 AS a, 2 AS A").to_arrow_table().schema)
    assert twice.value.code == Code.COLUMN_EXISTS


SHORT_CUTS = [
    "2024-01-01T123456.7", "2024-01-01 123456,7", "2024-01-01T12345678", "2024-01-01 12:32,56", "2024-01-01 12.34056",
    "2024-01-01T12:34.567", "2024-01-01T12:3456.7", "2024-01-01_12:34:56", "2024-01-01T12:34:5٣", "2024-W01-1T12:34:56",
    "2024-01-01T24:00:00", "2024-01-01T23:59:60", "2024-01-01t12:34:56", "2024-01-01T12:34+01:00", "20240101T1234",
]  # fmt: skip


@pytest.mark.parametrize("text", SHORT_CUTS)
@pytest.mark.parametrize("kind", ["TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS"])
def test_a_moment_in_an_unusual_form_loses_nothing(kind: str, text: str) -> None:
    """A text that is not a moment in ISO 8601's extended form is refused; none silently loses a fraction."""
    with pytest.raises(RequestError) as caught:
        one(kind, text)
    assert caught.value.code == Code.TYPE_MISMATCH
