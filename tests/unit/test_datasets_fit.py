"""Arrow rows are converted exactly to the table's types, or refused with their row; never a crash."""

from __future__ import annotations

import contextlib
import decimal
import io
import struct
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from teatree.contracts.errors import Code, RequestError
from teatree.contracts.types.schema import Field, Schema, parse_dtype
from teatree.datasets.arrow.types import lossless, to_arrow_type
from teatree.datasets.arrow_stream import read_arrow_stream
from teatree.datasets.fit import fit_table
from teatree.datasets.results.json_values import json_column

MEGABYTE = 1_000_000


def one_column(kind: str) -> Schema:
    """Return the schema of one column `c`."""
    return Schema((Field("c", parse_dtype(kind)),))


def fit(array: pa.Array, kind: str) -> list[Any]:
    """Fit one column, and insert it into a real table of that type."""
    schema = one_column(kind)
    fitted = fit_table(pa.table({"C": array}), schema)
    fitted.validate(full=True)
    assert fitted.schema.field(0).type == to_arrow_type(schema.fields[0].dtype)
    with duckdb.connect() as con:
        lossless(con)
        con.execute(f"CREATE TABLE t (c {kind})").fetchall()
        con.register("fitted", fitted)
        con.execute("INSERT INTO t SELECT c FROM fitted").fetchall()
        back = con.sql("SELECT c FROM t").to_arrow_table().column(0)
    return json_column(back.combine_chunks(), schema.fields[0].dtype)


def opaque(name: str, values: Sequence[bytes], width: int = 16) -> pa.Array:
    """Return an array of one of DuckDB's Arrow extension types."""
    return pa.ExtensionArray.from_storage(
        pa.opaque(pa.binary(width), name, "DuckDB"), pa.array(values, pa.binary(width))
    )


ID = uuid.UUID("00112233-4455-6677-8899-aabbccddeeff")
ACCEPTED: list[tuple[pa.Array, str, list[Any]]] = [
    (pa.array([1, None], pa.int32()), "BIGINT", [1, None]),
    (pa.array([2.0], pa.float64()), "INTEGER", [2]),
    (pa.array([2.0], pa.float16()), "INTEGER", [2]),
    (pa.array([decimal.Decimal("2.00")]), "UTINYINT", [2]),
    (pa.array([7, -7], pa.int64()), "HUGEINT", [7, -7]),
    (pa.array([2**64 - 1, None], pa.uint64()), "UHUGEINT", [str(2**64 - 1), None]),
    (pa.array([3.0]), "HUGEINT", [3]),
    (pa.array([2.0**100]), "HUGEINT", [str(2**100)]),
    (pa.array([0.1], pa.float32()), "DECIMAL(15,14)", [0.1]),
    (pa.array([{"days": 1, "micros": 2, "months": 0}]), "INTERVAL", ["P1DT0.000002S"]),
    (pa.array([{"a": "x"}]), "STRUCT(a ENUM('x'))", [{"a": "x"}]),
    (pa.array(["1E400"], pa.json_()), "JSON", [decimal.Decimal("1E400")]),
    (
        pa.array([[(-(2**60), 1)]], pa.map_(pa.timestamp("us"), pa.int8())),
        "MAP(TIMESTAMP, BIGINT)",
        [[["-34565-05-17T02:29:53.153024", 1]]],
    ),
    (pa.array([str(-(2**127))]), "HUGEINT", [str(-(2**127))]),
    (opaque("hugeint", [(5).to_bytes(16, "little")]), "INTEGER", [5]),
    (opaque("hugeint", [(5).to_bytes(16, "little")]), "UHUGEINT", [5]),
    (pa.array([3], pa.int8()), "DOUBLE", [3.0]),
    (pa.array([0.5, float("nan")], pa.float64()), "FLOAT", [0.5, "NaN"]),
    (pa.array([decimal.Decimal("0.1")]), "DOUBLE", [0.1]),
    (pa.array([decimal.Decimal("0.350")]), "DOUBLE", [0.35]),
    (pa.array([decimal.Decimal("0.35")]), "FLOAT", [0.35]),
    (pa.array([5], pa.int64()), "DECIMAL(3,1)", [5.0]),
    (pa.array([0.1, None]), "DECIMAL(3,1)", [0.1, None]),
    (pa.array([decimal.Decimal("1.50")]), "DECIMAL(9,1)", [1.5]),
    (pa.array(["a", None]).dictionary_encode(), "VARCHAR", ["a", None]),
    (pa.array(["a", "b" * 40], pa.string_view()), "VARCHAR", ["a", "b" * 40]),
    (pa.array(["a"], pa.large_string()), "ENUM('b','a')", ["a"]),
    (pa.array(["a", None, "b"]).dictionary_encode(), "ENUM('b','a')", ["a", None, "b"]),
    (pa.array([b"ab"], pa.binary(2)), "BLOB", ["YWI="]),
    (pa.array([ID.bytes], pa.binary(16)), "UUID", [str(ID)]),
    (pa.array([str(ID), None]), "UUID", [str(ID), None]),
    (pa.array([ID.bytes], pa.uuid()), "UUID", [str(ID)]),
    (pa.array(['{"a": 1}', None]), "JSON", [{"a": 1}, None]),
    (pa.array(["010"]), "BIT", ["010"]),
    (pa.array(["10:00:00+02:00"]), "TIMETZ", ["10:00:00+02:00"]),
    (pa.array([86_400_000], pa.int64()).view(pa.date64()), "DATE", ["1970-01-02"]),
    (pa.array([1], pa.time32("s")), "TIME", ["00:00:01"]),
    (pa.array([1000], pa.timestamp("ms")), "TIMESTAMP_S", ["1970-01-01T00:00:01"]),
    (pa.array([0], pa.timestamp("s", "Europe/Berlin")), "TIMESTAMPTZ", ["1970-01-01T00:00:00Z"]),
    (pa.array([2**63 - 1], pa.timestamp("us")), "TIMESTAMP", ["infinity"]),
    (pa.array([1500], pa.duration("ms")), "INTERVAL", ["PT1.500000S"]),
    (pa.array([1, 0, None], pa.bool8()), "BOOLEAN", [True, False, None]),
    (pa.nulls(2), "STRUCT(a INTEGER)", [None, None]),
    (pa.array([[1], None, []], pa.large_list(pa.int8())), "INTEGER[]", [[1], None, []]),
    (pa.array([[], None]).cast(pa.list_(pa.string())), "ENUM('a')[]", [[], None]),
    (pa.array([["a"], None]), "ENUM('a')[1]", [["a"], None]),
    (pa.array([[1, 2], None]), "BIGINT[2]", [[1, 2], None]),
    (pa.array([None, [1, 2], None, [3, 4]], pa.list_(pa.int8(), 2)), "BIGINT[2]", [None, [1, 2], None, [3, 4]]),
    (pa.array([{"A": 1}, None]), "STRUCT(a INTEGER, b VARCHAR)", [{"a": 1, "b": None}, None]),
    (pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int8())), "MAP(VARCHAR, BIGINT)", [{"k": 1}, None]),
]


@pytest.mark.parametrize(("array", "kind", "expected"), ACCEPTED)
def test_what_fits_is_accepted(array: pa.Array, kind: str, expected: list[Any]) -> None:
    """A value that the type can hold is stored as that value, in any notation."""
    assert fit(array, kind) == expected
    assert fit(pa.concat_arrays([pa.nulls(3, array.type), array, array]).slice(3), kind) == expected * 2


REFUSED: list[tuple[pa.Array, str, Code]] = [
    (pa.array([1.5]), "INTEGER", Code.LOSSY_NUMBER),
    (pa.array([float("nan")]), "INTEGER", Code.TYPE_MISMATCH),
    (pa.array([float("inf")]), "HUGEINT", Code.TYPE_MISMATCH),
    (pa.array([300]), "UTINYINT", Code.OUT_OF_RANGE),
    (pa.array([-1]), "UHUGEINT", Code.OUT_OF_RANGE),
    (pa.array([2**53 + 1]), "DOUBLE", Code.LOSSY_NUMBER),
    (pa.array([decimal.Decimal(-(2**63))], pa.decimal128(38, 0)), "DECIMAL(38,38)", Code.OUT_OF_RANGE),
    (pa.array([decimal.Decimal(2**53 + 1)], pa.decimal128(38, 0)), "DOUBLE", Code.LOSSY_NUMBER),
    (pa.array([0.1]), "FLOAT", Code.LOSSY_NUMBER),
    (pa.array([decimal.Decimal("1.25")]), "DECIMAL(3,1)", Code.LOSSY_NUMBER),
    (pa.array([decimal.Decimal("100.0")]), "DECIMAL(3,1)", Code.OUT_OF_RANGE),
    (pa.array([0.125]), "DECIMAL(3,1)", Code.LOSSY_NUMBER),
    (pa.array([1000]), "DECIMAL(3,1)", Code.OUT_OF_RANGE),
    (pa.array(["1"]), "INTEGER", Code.TYPE_MISMATCH),
    (pa.array([1]), "VARCHAR", Code.TYPE_MISMATCH),
    (pa.array([1]), "BOOLEAN", Code.TYPE_MISMATCH),
    (pa.array([b"a"]), "VARCHAR", Code.TYPE_MISMATCH),
    (pa.array(["x"]), "ENUM('a')", Code.TYPE_MISMATCH),
    (pa.array(["x"]), "UUID", Code.TYPE_MISMATCH),
    (pa.array(["{"]), "JSON", Code.TYPE_MISMATCH),
    (pa.array(["{"], pa.json_()), "JSON", Code.TYPE_MISMATCH),
    (pa.array([1001], pa.timestamp("ms")), "TIMESTAMP_S", Code.LOSSY_NUMBER),
    (pa.array([2**60], pa.timestamp("ms")), "TIMESTAMP_MS", Code.OUT_OF_RANGE),
    (pa.array([2**62], pa.timestamp("s")), "TIMESTAMP_S", Code.OUT_OF_RANGE),
    (pa.array([-(2**63)], pa.int64()).view(pa.timestamp("us")), "TIMESTAMP", Code.OUT_OF_RANGE),
    (pa.array([0], pa.timestamp("us", "UTC")), "TIMESTAMP", Code.TYPE_MISMATCH),
    (pa.array([0], pa.timestamp("us")), "TIMESTAMPTZ", Code.TYPE_MISMATCH),
    (pa.array([-(2**31)], pa.int32()).view(pa.date32()), "DATE", Code.OUT_OF_RANGE),
    (pa.array([(0, 0, 1)], pa.month_day_nano_interval()), "INTERVAL", Code.LOSSY_NUMBER),
    (opaque("time_tz", [b"\xff" * 8], 8), "TIMETZ", Code.OUT_OF_RANGE),
    (opaque("bit", [b"\x09\xff"], -1), "BIT", Code.OUT_OF_RANGE),
    (opaque("bit", [b""], -1), "BIT", Code.OUT_OF_RANGE),
    (opaque("hugeint", [b"12345678"], 8), "HUGEINT", Code.TYPE_MISMATCH),
    (opaque("time_tz", [b"12345678"], -1), "TIMETZ", Code.TYPE_MISMATCH),
    (pa.array([[1, 2, 3]]), "INTEGER[2]", Code.TYPE_MISMATCH),
    (pa.array([[1, 2.5]]), "INTEGER[]", Code.LOSSY_NUMBER),
    (pa.array([{"x": 1}]), "STRUCT(a INTEGER)", Code.UNKNOWN_COLUMN),
    (pa.array([[("k", 1), ("k", 2)]], pa.map_(pa.string(), pa.int8())), "MAP(VARCHAR, INTEGER)", Code.DUPLICATE_KEY),
]


@pytest.mark.parametrize(("array", "kind", "code"), REFUSED)
def test_what_does_not_fit_is_refused(array: pa.Array, kind: str, code: Code) -> None:
    """A value that would change is refused, and the refusal names its row."""
    column = pa.concat_arrays([pa.nulls(5, array.type), array, pa.nulls(2, array.type)])
    with pytest.raises(RequestError) as caught:
        fit_table(pa.table({"c": column}), one_column(kind))
    assert caught.value.code == code
    assert caught.value.where is not None
    assert caught.value.where.startswith("rows[5].c")


def test_columns() -> None:
    """Columns are found in any case, completed with nulls, left to their defaults, and refused by name."""
    schema = Schema(
        (
            Field("id", parse_dtype("INTEGER"), nullable=False),
            Field("note", parse_dtype("VARCHAR")),
            Field("at", parse_dtype("DATE"), default="current_date"),
        )
    )
    ids = pa.array([1, 2])
    assert fit_table(pa.table({"ID": ids}), schema).column_names == ["id", "note"]
    assert fit_table(pa.table({"ID": ids}), schema, fill=False).column_names == ["id"]
    for columns, code, where in (
        ({"id": ids, "x": ids}, Code.UNKNOWN_COLUMN, "rows.x"),
        ({"note": pa.array(["a"])}, Code.MISSING_COLUMN, "rows.id"),
        ({"id": pa.array([1, None])}, Code.NOT_NULL, "rows[1].id"),
        ({"id": ids, "ID": ids}, Code.DUPLICATE_KEY, "rows.ID"),
    ):
        with pytest.raises(RequestError) as caught:
            fit_table(pa.table(columns), schema)
        assert (caught.value.code, caught.value.where) == (code, where)


def stream(table: pa.Table, compression: str | None = None) -> bytes:
    """Return a table as an Arrow IPC stream of several batches."""
    sink = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=3 if table.num_rows < 100 else None)
    return sink.getvalue()


TABLE = pa.table(
    {
        "i": pa.array([1, 2, None, 4, 5, 6, 7, 8]),
        "s": pa.array(["a", None, "ccc", "", "d", "e", "f", "ä"]),
        "d": pa.array(["x", "y"] * 4).dictionary_encode(),
        "v": pa.array(["x" * 20, None] * 4, pa.string_view()),
        "l": pa.array([[1], None, [], [2, 3]] * 2),
        "m": pa.array([[("k", 1.5)], None] * 4, pa.map_(pa.string(), pa.float64())),
        "f": pa.array([[1, 2], None] * 4, pa.list_(pa.int8(), 2)),
        "t": pa.array([{"a": decimal.Decimal("1.5"), "u": ID.bytes}, None] * 4),
        "b": pa.array([True, None] * 4),
    }
)
COMPRESSIONS = (None, "lz4", "zstd")


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_whole_streams_are_read(compression: str | None) -> None:
    """A stream is read exactly, compressed or not, also in Polars' form."""
    assert read_arrow_stream(stream(TABLE, compression), MEGABYTE).equals(TABLE)
    sink = io.BytesIO()
    frame = pl.DataFrame({"c": ["a" * 30, None], "n": [1, 2]})
    frame.write_ipc_stream(sink, compression="zstd" if compression else "uncompressed")
    schema = Schema((Field("c", parse_dtype("VARCHAR")), Field("n", parse_dtype("TINYINT"))))
    fitted = fit_table(read_arrow_stream(sink.getvalue(), MEGABYTE), schema)
    assert fitted.to_pylist() == frame.to_dicts()


def bombs() -> list[tuple[str, bytes]]:
    """Return small streams that decode to much more than a megabyte."""
    text = pa.array(["x" * 10_000])
    repeated = pa.DictionaryArray.from_arrays(pa.array([0] * 1_000, pa.int8()), text)
    return [
        ("compressed zeros", stream(pa.table({"c": pa.array([0] * 1_000_000)}), "zstd")),
        ("nulls without a byte", stream(pa.table({"c": pa.nulls(1_000_000)}))),
        ("a dictionary", stream(pa.table({"c": repeated}))),
        ("a nested dictionary", stream(pa.table({"c": pa.ListArray.from_arrays([0, 1_000], repeated)}))),
    ]


@pytest.mark.parametrize(("name", "body"), bombs())
def test_bombs_are_refused(name: str, body: bytes) -> None:
    """A small body that would fill the memory is refused before it does."""
    assert len(body) < MEGABYTE, name
    before = pa.total_allocated_bytes()
    with pytest.raises(RequestError) as caught:
        read_arrow_stream(body, MEGABYTE)
    assert caught.value.code == Code.BODY_TOO_LARGE
    assert pa.total_allocated_bytes() - before < 20 * MEGABYTE


def test_invalid_text_is_refused() -> None:
    """A text that is not UTF-8 is refused; DuckDB would refuse the whole batch for it."""
    text = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(struct.pack("<ii", 0, 2)), pa.py_buffer(b"\xff\xfe")]
    )
    with pytest.raises(RequestError) as caught:
        read_arrow_stream(stream(pa.table({"c": text})), MEGABYTE)
    assert caught.value.code == Code.BAD_ARROW
    with pytest.raises(RequestError):
        fit_table(pa.table({"c": text}), one_column("VARCHAR"))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_streams_are_refused(data: st.DataObject) -> None:
    """A truncated or changed stream gives valid rows or a refusal, and the process survives."""
    whole = stream(TABLE, data.draw(st.sampled_from(COMPRESSIONS)))
    body = bytearray(whole[: data.draw(st.one_of(st.just(len(whole)), st.integers(0, len(whole))))])
    for place, byte in data.draw(st.lists(st.tuples(st.integers(0, max(len(body) - 1, 0)), st.integers(0, 255)))):
        if body:
            body[place] = byte
    try:
        table = read_arrow_stream(bytes(body), MEGABYTE)
    except RequestError as e:
        assert e.code in (Code.BAD_ARROW, Code.BODY_TOO_LARGE, Code.TYPE_MISMATCH)  # noqa: PT017 - either may happen
    else:
        table.validate(full=True)
        with contextlib.suppress(decimal.InvalidOperation):  # a scale beyond Python's Decimal
            repr(table.to_pylist())


def batches_of_dictionaries(words: Callable[[int], pa.Array]) -> bytes:
    """Return a stream of two batches whose dictionaries have nothing in common, and together too many words."""
    batches = [pa.record_batch([words(start)], ["c"]) for start in (0, 100)]
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, batches[0].schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return sink.getvalue()


def dictionary(start: int, arrow: pa.DataType) -> pa.Array:
    """Return 100 rows of an 8-bit dictionary of as many words."""
    words = pa.array([f"word {start + i} of a text" for i in range(100)]).cast(arrow)
    return pa.DictionaryArray.from_arrays(pa.array(range(100), pa.int8()), words)


@pytest.mark.parametrize("arrow", [pa.string(), pa.string_view(), pa.large_string()], ids=str)
def test_dictionaries_differ_from_batch_to_batch(arrow: pa.DataType) -> None:
    """Each batch of a stream has another dictionary, of texts or views, in a column or within a list or struct."""
    wanted = [f"word {i} of a text" for i in range(200)]
    texts = read_arrow_stream(batches_of_dictionaries(lambda start: dictionary(start, arrow)), 10**6)
    assert fit_table(texts, one_column("VARCHAR")).column(0).to_pylist() == wanted
    members = ", ".join(f"'{word}'" for word in wanted)
    assert fit_table(texts, one_column(f"ENUM({members})")).column(0).to_pylist() == wanted
    offsets = pa.array([0, 50, 100], pa.int32())
    lists = batches_of_dictionaries(lambda start: pa.ListArray.from_arrays(offsets, dictionary(start, arrow)))
    found = fit_table(read_arrow_stream(lists, 10**6), one_column("VARCHAR[]")).column(0).to_pylist()
    assert [word for row in found for word in row] == wanted
    structs = batches_of_dictionaries(lambda start: pa.StructArray.from_arrays([dictionary(start, arrow)], ["a"]))
    found = fit_table(read_arrow_stream(structs, 10**6), one_column("STRUCT(a VARCHAR)")).column(0).to_pylist()
    assert [row["a"] for row in found] == wanted


def test_a_wrong_value_in_a_later_dictionary_has_its_row() -> None:
    """Rows are counted over all batches."""
    texts = read_arrow_stream(batches_of_dictionaries(lambda start: dictionary(start, pa.string())), 10**6)
    members = ", ".join(f"'word {i} of a text'" for i in range(150))
    with pytest.raises(RequestError) as caught:
        fit_table(texts, one_column(f"ENUM({members})"))
    assert caught.value.where == "rows[150].c"
