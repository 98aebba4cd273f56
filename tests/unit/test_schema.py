"""The types of the contracts: their text is DuckDB's, and parsing it loses nothing."""

from __future__ import annotations

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from teatree.contracts.errors import Code, CorruptError, RequestError
from teatree.contracts.formats.codec import dump_json, parse_json, structure, unstructure
from teatree.contracts.types.dtype_parser import TYPE_DEPTH_MAX
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
    StructField,
    Time,
    Timestamp,
    TimeTz,
    Uuid,
    Varchar,
)
from teatree.contracts.types.schema import Field, Schema, parse_dtype

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12)
PLAIN: st.SearchStrategy[Dtype] = st.one_of(
    st.sampled_from(
        [Boolean(), Varchar(), Blob(), Bit(), Date(), Time(), Time("ns"), TimeTz(), Interval(), Uuid(), Json()]
        + [Timestamp(unit) for unit in ("s", "ms", "us", "ns")]
        + [Timestamp(unit, tz=True) for unit in ("us", "ns")]
        + [Float(32), Float(64)]
        + [Integer(bits, signed) for bits in (8, 16, 32, 64, 128) for signed in (True, False)]
    ),
    st.integers(1, 38).flatmap(lambda p: st.integers(0, p).map(lambda s: Decimal(p, s))),
    st.lists(TEXTS, min_size=1, max_size=4, unique=True).map(lambda values: Enum(tuple(values))),
)


def _nest(inner: st.SearchStrategy[Dtype]) -> st.SearchStrategy[Dtype]:
    names = st.lists(TEXTS, min_size=1, max_size=3, unique_by=str.lower)
    return st.one_of(
        inner.map(List),
        st.builds(Array, inner, st.integers(1, 5)),
        st.builds(Map, inner, inner),
        names.flatmap(lambda ns: st.tuples(*(st.builds(StructField, st.just(n), inner) for n in ns)).map(Struct)),
    )


DTYPES = st.recursive(PLAIN, _nest, max_leaves=6)


@settings(deadline=None)
@given(DTYPES)
def test_text_round_trip(dtype: Dtype) -> None:
    """Parsing a type's text returns the type, with any spaces in its JSON, and through the converter."""
    assert parse_dtype(str(dtype)) == dtype
    schema = Schema((Field("a", dtype, nullable=False, default="now()"), Field("b", dtype)))
    assert structure(parse_json(dump_json(unstructure(schema))), Schema, "test") == schema


@settings(deadline=None)
@given(DTYPES)
def test_duckdb_agrees(dtype: Dtype) -> None:
    """DuckDB accepts a type's text and returns a text that is parsed as the same type."""
    with duckdb.connect() as con:
        con.execute(f"CREATE TABLE t (c {dtype})").fetchall()
        ((text,),) = con.execute("SELECT data_type FROM duckdb_columns() WHERE table_name = 't'").fetchall()
    assert parse_dtype(text) == dtype


@pytest.mark.parametrize(
    ("text", "dtype"),
    [
        ("int", Integer()),
        ("BigInt", Integer(64)),
        ("text", Varchar()),
        ("varchar(10)", Varchar()),
        ("character varying (3)", Varchar()),
        ("string", Varchar()),
        ("numeric", Decimal(18, 3)),
        ("numeric(5)", Decimal(5, 0)),
        ("double precision", Float(64)),
        ("float(53)", Float(64)),
        ("datetime", Timestamp()),
        ("timestamp(0)", Timestamp("s")),
        ("TimestampTz", Timestamp(tz=True)),
        ("timestamp without time zone", Timestamp()),
        ("time with time zone", TimeTz()),
        (
            'row("A ""b" int, c text[2][])',
            Struct((StructField('A "b', Integer()), StructField("c", List(Array(Varchar(), 2))))),
        ),
    ],
)
def test_aliases(text: str, dtype: Dtype) -> None:
    """DuckDB's other names for a type are the same type, in any case."""
    assert parse_dtype(text) == dtype


@pytest.mark.parametrize(
    "text",
    [
        *("", "x", "int[", "int[0]", "int[-1]", "int]", "int int", "int;", "int; drop table t", "int -- x", "int '"),
        *("decimal(39)", "decimal(3,4)", "decimal(0)", "decimal(1,2,3)", "timestamp(4)", "int(3)", "float(99)"),
        *("struct()", "struct(a)", "struct(a int", "struct(a int, A int)", 'struct("" int)', "map(int)", "enum()"),
        *("enum('a','a')", "enum(a)", "union(a int)", "variant", "time_ns with time zone", "timestamp with", "\0"),
        *("int" + "[]" * 33, "struct(a " * 33 + "int" + ")" * 33, "enum('\ud800')", "int[99999999999]"),
        "struct(a " * 20 + "int" + "[])" * 20,
        *("int[65536][65536][65536][65536]", "int[100000][2]", "struct(a int[50001], b int)[2]", "int[1000][][101]"),
        7,
        None,
    ],
)
def test_refused(text: object) -> None:
    """What is not a type is refused as `bad_argument`, at its place."""
    with pytest.raises(RequestError) as caught:
        parse_dtype(text, "columns[3].type")
    assert caught.value.code == Code.BAD_ARGUMENT
    assert caught.value.where == "columns[3].type"


@given(st.text(st.sampled_from("intdecmalSTRUC MAP()[],'\"0123\0\ud800"), max_size=40))
def test_any_text_is_a_type_or_refused(text: str) -> None:
    """Parsing any text returns a type or is refused."""
    try:
        parse_dtype(text)
    except RequestError as e:
        assert e.code == Code.BAD_ARGUMENT  # noqa: PT017 - most texts are refused, none need be


def test_depth_is_bounded() -> None:
    """The deepest type allowed is read, its child is not."""
    deepest = "INTEGER" + "[]" * TYPE_DEPTH_MAX
    assert str(parse_dtype(deepest)) == deepest
    with pytest.raises(RequestError, match="nested"):
        parse_dtype(deepest + "[]")


def test_columns_are_found_in_any_case() -> None:
    """A schema looks columns up as DuckDB does, and refuses two that DuckDB could not distinguish."""
    schema = Schema((Field("Id", Integer(64)), Field("name", Varchar())))
    assert schema["iD"] is schema.fields[0]
    assert "NAME" in schema
    assert schema.get("other") is None
    assert schema.select(["NAME", "id"]).names == ("name", "Id")
    with pytest.raises(RequestError) as unknown:
        schema.field("x", "rows[0].x")
    assert (unknown.value.code, unknown.value.where) == (Code.UNKNOWN_COLUMN, "rows[0].x")
    with pytest.raises(RequestError) as twice:
        Schema((Field("a", Integer()), Field("A", Integer())))
    assert twice.value.code == Code.COLUMN_EXISTS


def test_a_damaged_type_is_corrupt() -> None:
    """An invalid type in a stored schema is corruption, not a user's error."""
    with pytest.raises(CorruptError):
        structure({"fields": [{"name": "a", "dtype": "INTEGR"}]}, Schema, "manifest")
