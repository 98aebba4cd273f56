"""A bad request harms only itself: it is rejected with a code, a cause and a place; its neighbours in the batch commit.

Each case is in one batch between two good appends. A line has the request, then the code, a part of the sentence
and the place.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from one_writer import OneWriter, Sent, arrow, arrow_headers
from teatree.contracts.formats.notices import Status

TYPES = {
    "i8": "TINYINT", "i16": "SMALLINT", "i": "INTEGER", "b": "BIGINT", "h": "HUGEINT",
    "u8": "UTINYINT", "u16": "USMALLINT", "u32": "UINTEGER", "u": "UBIGINT", "uh": "UHUGEINT",
    "f": "FLOAT", "d": "DOUBLE", "dec": "DECIMAL(10,2)", "t": "VARCHAR", "bo": "BOOLEAN", "ts": "TIMESTAMP",
    "da": "DATE", "ti": "TIME", "iv": "INTERVAL", "uu": "UUID", "bl": "BLOB", "j": "JSON", "e": "ENUM('a', 'b')",
    "l": "INTEGER[]", "s": "STRUCT(x INTEGER)", "m": "MAP(VARCHAR, INTEGER)",
}  # fmt: skip
TABLES: list[dict[str, Any]] = [
    {"table": "t", "columns": [{"name": name, "type": kind} for name, kind in TYPES.items()]},
    {
        "table": "k",
        "columns": [{"name": "id", "type": "INTEGER"}, {"name": "v", "type": "VARCHAR", "nullable": False}],
        "primary_key": ["id"],
    },
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneWriter]:
    """Return a model with a table of every type, and one with a key that holds the row 1."""
    writer = OneWriter(tmp_path_factory.mktemp("model"), TABLES)
    (outcome,) = writer.apply(Sent("append", {"table": "k", "rows": [{"id": 1, "v": "first"}]}))
    assert outcome.status is Status.DONE
    yield writer
    writer.check_good_rows()
    assert writer.rows("SELECT id, v FROM k") == [{"id": 1, "v": "first"}]
    assert writer.rows("SELECT count(*) AS rows FROM t") == [{"rows": 0}]
    writer.close()


def sent(function: str, body: Any = b"", **headers: str) -> Sent:
    """Return a request with headers whose names are written with _ for -."""
    return Sent(function, body, {name.replace("_", "-"): value for name, value in headers.items()})


def raw(column: str, json: str) -> Sent:
    """Return an append of one value, given as JSON."""
    return Sent("append", f'{{"table": "t", "rows": [{{"{column}": {json}}}]}}'.encode())


def body(json: bytes) -> Sent:
    """Return an append with this body."""
    return Sent("append", json)


def stream(column: str, array: pa.Array, compression: str | None = None) -> Sent:
    """Return an append of one Arrow column."""
    return Sent("append", arrow({column: array}, compression), arrow_headers(table="t"))


def keyed(columns: dict[str, Any]) -> Sent:
    """Return an append of Arrow columns to the table with a key."""
    return Sent("append", arrow(columns), arrow_headers(table="k"))


def k(*rows: dict[str, Any]) -> Sent:
    """Return an append of rows to the table with a key."""
    return Sent("append", {"table": "k", "rows": list(rows)})


def upsert(*rows: dict[str, Any], key: Any = None, table: str = "t") -> Sent:
    """Return an upsert of rows."""
    return Sent("upsert", {"table": table, "rows": list(rows), "key": key})


def create(name: str) -> Sent:
    """Return the creation of a table by a name."""
    return Sent("create_table", {"table": name, "columns": [{"name": "a", "type": "INTEGER"}]})


def columns(*columns: Any, **more: Any) -> Sent:
    """Return the creation of a table of columns."""
    return Sent("create_table", {"table": "new", "columns": list(columns), **more})


def column(name: str = "a", type: Any = "INTEGER", **more: Any) -> dict[str, Any]:
    """Return a column for `create_table`."""
    return {"name": name, "type": type, **more}


def alter(table: str, **change: Any) -> Sent:
    """Return a change of a table."""
    return Sent("alter_table", {"table": table, **change})


def ints(*values: Any, bits: int = 64) -> pa.Array:
    """Return an Arrow array of whole numbers."""
    return pa.array(values, getattr(pa, f"int{bits}")())


GOOD_STREAM = arrow({"i": ints(1, 2, bits=32)})
DEEP = "[" * 100_000

REQUESTS = [
    (sent("nope", {}), "unknown_function", "no function 'nope'", "function"),
    (sent("Append", {}), "bad_name", "'Append' is not a function name", "function"),
    (sent("append"), "missing_argument", "needs the argument 'table'", "table"),
    (sent("append", {"table": "t"}), "missing_argument", "needs the argument 'rows'", "rows"),
    (sent("append", {"table": "t", "rows": [], "mode": "x"}), "unknown_argument", "no argument 'mode'", "mode"),
    (sent("append", {"table": 1, "rows": []}), "bad_argument", "must be a text, not 1", "table"),
    (sent("append", {"table": "t", "rows": {}}), "bad_argument", "must be a list", "rows"),
    (sent("append", {"table": "t", "rows": [1]}), "bad_argument", "must be an object, not 1", "rows[0]"),
    (sent("append", [1]), "bad_argument", "must be a JSON object", "body"),
    (sent("append", b"null"), "bad_argument", "must be a JSON object", "body"),
    (sent("append", {"table": "nope", "rows": []}), "unknown_table", "There is no table 'nope'", "table"),
    (sent("append", b"<a/>", Content_Type="text/xml"), "bad_content_type", "'text/xml' is not known", "Content-Type"),
    (sent("append", {}, Teatree_Args="{}"), "bad_header", "goes with an Arrow body", "body"),
    (sent("append", {}, Teatree_Request_Id="seq-1"), "bad_request_id", "reserved prefix", "Teatree-Request-Id"),
    (sent("append", {}, Teatree_Request_Id="x" * 65), "bad_request_id", "is not a request id", "Teatree-Request-Id"),
    (sent("append", {}, Teatree_Request_Id="a.b"), "bad_request_id", "is not a request id", "Teatree-Request-Id"),
    (sent("append", {}, Teatree_Group="a b"), "bad_request_id", "is not a group id", "Teatree-Group"),
    (sent("append", b"x" * 8_000_001), "body_too_large", "8,000,001 bytes; the limit is 8,000,000", "body"),
    (sent("append", {"expected_version": 1}), "stale_version", "changed the model after version 1", "expected_version"),
    (sent("append", {"expected_version": 10**9}), "unknown_version", "no version 1000000000", "expected_version"),
    (sent("append", {"expected_version": 0}), "unknown_version", "no version 0", "expected_version"),
    (sent("append", {"expected_version": -1}), "out_of_range", "is out of range: -1", "expected_version"),
    (sent("append", {"expected_version": 2**63}), "out_of_range", "is out of range", "expected_version"),
    (sent("append", {"expected_version": "1"}), "bad_argument", "must be a whole number", "expected_version"),
    (sent("create_model", {}), "model_exists", "'m' exists already", "model"),
    (sent("drop_model", {"x": 1}), "unknown_argument", "no argument 'x'", "x"),
    (sent("archive", {"tables": ["nope"]}), "unknown_table", "There is no table 'nope'", "table"),
    (sent("archive", {"tables": [1]}), "bad_argument", "must be a text", "tables[0]"),
]
JSON = [
    (body(b'{"table": "t", "rows": ['), "bad_json", "in line 1, column 25", "body"),
    (body(b'{"table": "t"} {}'), "bad_json", "Extra data in line 1, column 16", "body"),
    (body(b"\xff\xfe"), "bad_json", "not UTF-8: byte 0 is 0xff", "body"),
    (body(b'{"table": "t\x00"}'), "bad_json", "Invalid control character", "body"),
    (body(DEEP.encode()), "bad_json", "nested too deeply", "body"),
    (body(b'{"table": "t", "table": "k"}'), "duplicate_key", "'table' occurs twice", "table"),
    (body(b'{"table": "t", "rows": [{"i": 1, "i": 2}]}'), "duplicate_key", "'i' occurs twice", "i"),
    (body(b'{"table": "t", "rows": [{"i": 1, "I": 2}]}'), "duplicate_key", "given twice, as 'i' and 'I'", "rows[0].I"),
    (body(rb'{"\ud800": 1, "\ud800": 2}'), "duplicate_key", "occurs twice", r"\ud800"),
    (body(rb'{"table": "t", "rows": [{"\ud800": 1}]}'), "unknown_column", "There is no column", r"rows[0].\ud800"),
    (raw("x" * 100_000, "1"), "unknown_column", "There is no column 'xxx", "rows[0].xxx"),
    (raw("i", "NaN"), "bad_json", "NaN is not JSON", "body"),
    (raw("d", "-Infinity"), "bad_json", "-Infinity is not JSON", "body"),
    (raw("i", "9" * 401), "out_of_range", "more than 400 digits", "body"),
    (raw("d", "1e99999999999999999999"), "out_of_range", "too large an exponent", "body"),
    (raw("d", "1e400"), "out_of_range", "out of range for DOUBLE", "rows[0].d"),
    (raw("nope", "1"), "unknown_column", "There is no column 'nope'", "rows[0].nope"),
    (raw("i", "1.9"), "lossy_number", "1.9 would lose digits as INTEGER", "rows[0].i"),
    (raw("i", "1e-5"), "lossy_number", "would lose digits as INTEGER", "rows[0].i"),
    (raw("b", "18446744073709551616"), "out_of_range", "out of range for BIGINT", "rows[0].b"),
    (raw("b", "18446744073709551616.0"), "out_of_range", "out of range for BIGINT", "rows[0].b"),
    (raw("u", "18446744073709551616"), "out_of_range", "out of range for UBIGINT", "rows[0].u"),
    (raw("u", "18446744073709551617.0"), "out_of_range", "out of range for UBIGINT", "rows[0].u"),
    (raw("u", "1.8446744073709551617e19"), "out_of_range", "out of range for UBIGINT", "rows[0].u"),
    (raw("d", "9007199254740993"), "lossy_number", "would lose digits as DOUBLE", "rows[0].d"),
    (raw("f", "16777217"), "lossy_number", "would lose digits as FLOAT", "rows[0].f"),
    (raw("f", "1e39"), "out_of_range", "out of range for FLOAT", "rows[0].f"),
    (raw("dec", "1.005"), "lossy_number", "1.005 would lose digits as DECIMAL(10,2)", "rows[0].dec"),
    (raw("dec", "123456789"), "out_of_range", "out of range for DECIMAL(10,2)", "rows[0].dec"),
    (raw("i8", "128"), "out_of_range", "128 is out of range for TINYINT", "rows[0].i8"),
    (raw("i8", "-129"), "out_of_range", "out of range for TINYINT", "rows[0].i8"),
    (raw("i16", "32768"), "out_of_range", "out of range for SMALLINT", "rows[0].i16"),
    (raw("i", "2147483648"), "out_of_range", "out of range for INTEGER", "rows[0].i"),
    (raw("b", "9223372036854775808"), "out_of_range", "out of range for BIGINT", "rows[0].b"),
    (raw("h", str(2**127)), "out_of_range", "out of range for HUGEINT", "rows[0].h"),
    (raw("u8", "256"), "out_of_range", "out of range for UTINYINT", "rows[0].u8"),
    (raw("u16", "65536"), "out_of_range", "out of range for USMALLINT", "rows[0].u16"),
    (raw("u32", "-1"), "out_of_range", "out of range for UINTEGER", "rows[0].u32"),
    (raw("uh", str(2**128)), "out_of_range", "out of range for UHUGEINT", "rows[0].uh"),
    (raw("i", '"1"'), "type_mismatch", "'1' is not a value of type INTEGER", "rows[0].i"),
    (raw("i", "true"), "type_mismatch", "true is not a value of type INTEGER", "rows[0].i"),
    (raw("t", "1"), "type_mismatch", "1 is not a value of type VARCHAR", "rows[0].t"),
    (raw("bo", '"true"'), "type_mismatch", "is not a value of type BOOLEAN", "rows[0].bo"),
    (raw("t", r'"\ud800"'), "type_mismatch", "half a surrogate pair", "rows[0].t"),
    (raw("ts", '"2026-01-01T00:00:00.1234567"'), "type_mismatch", "more than 6 digits", "rows[0].ts"),
    (raw("ts", '"yesterday"'), "type_mismatch", "is not a moment", "rows[0].ts"),
    (raw("da", '"2026-02-30"'), "type_mismatch", "2026-02-30", "rows[0].da"),
    (raw("iv", '"1 day"'), "type_mismatch", "is not a duration", "rows[0].iv"),
    (raw("uu", '"x"'), "type_mismatch", "is not a UUID", "rows[0].uu"),
    (raw("bl", '"?"'), "type_mismatch", "is not Base64", "rows[0].bl"),
    (raw("e", '"c"'), "type_mismatch", "is not a value of type ENUM", "rows[0].e"),
    (raw("l", "[1, 1.5]"), "lossy_number", "1.5 would lose digits", "rows[0].l[1]"),
    (raw("s", '{"y": 1}'), "unknown_column", "no member 'y'", "rows[0].s.y"),
    (raw("m", '{"a": "b"}'), "type_mismatch", "'b' is not a value of type INTEGER", "rows[0].m.a"),
    (raw("j", "[" * 900 + "]" * 900), "type_mismatch", "nested more than 250 levels", "rows[0].j"),
    (raw("l", "[" * 900 + "]" * 900), "type_mismatch", "is not a value of type INTEGER", "rows[0].l[0]"),
]
KEYS = [
    (k({"id": 2}), "missing_column", "'v' is left out", "rows[0].v"),
    (k({"id": 2, "v": None}), "not_null", "does not take null", "rows[0].v"),
    (k({"id": None, "v": "x"}), "not_null", "does not take null", "rows[0].id"),
    (k({"id": 1, "v": "x"}), "constraint", "'id: 1' is there already", "rows"),
    (k({"id": 2, "v": "x"}, {"id": 2, "v": "y"}), "constraint", "or twice in the request", "rows"),
    (keyed({"id": ints(2, None, bits=32), "v": ["x", "y"]}), "not_null", "does not take null", "rows[1].id"),
    (keyed({"id": ints(1, bits=32), "v": ["x"]}), "constraint", "is there already", "rows"),
    (keyed({"id": ints(2, bits=32)}), "missing_column", "'v' is left out", "rows.v"),
    (upsert({"id": 2, "v": "x"}, {"id": 2, "v": "y"}, table="k"), "constraint", "has the same key", "rows[1]"),
    (upsert({"id": None, "v": "x"}, table="k"), "not_null", "does not take null", "rows[0].id"),
    (upsert({"id": 1, "v": None}, table="k"), "not_null", "does not take null", "rows[0].v"),
    (upsert({"i": 1}), "missing_argument", "has no primary key", "key"),
    (upsert({"i": 1}, key=["nope"]), "unknown_column", "There is no column 'nope'", "key.nope"),
    (upsert({"i": 1}, key=[1]), "bad_argument", "must be a text", "key[0]"),
    (upsert({"i": 1, "l": [1]}, key=["l"]), "type_mismatch", "key cannot be of type INTEGER[]", "key.l"),
    (upsert({"i": 1}, key=["t"]), "missing_column", "needs the key column 't'", "rows"),
    (upsert({"t": None}, key=["t"]), "not_null", "key column is null", "rows[0]"),
    (upsert({"d": "NaN"}, {"d": "NaN"}, key=["d"]), "constraint", "has the same key", "rows[1]"),
    (sent("update", {"table": "k", "set": {}}), "missing_argument", "at least one column to set", "set"),
    (sent("update", {"table": "k", "set": {"id": 1.5}}), "lossy_number", "1.5 would lose digits", "set.id"),
    (sent("update", {"table": "k", "set": {"v": None}}), "not_null", "'v' of 'k' does not take null", "arguments"),
    (sent("update", {"table": "k", "set": {"v": "x", "V": "y"}}), "duplicate_key", "given twice", "set.V"),
    (sent("update", {"table": "k", "set": {"v": "x"}, "where": {"q": 1}}), "unknown_column", "'q'", "where.q"),
    (sent("delete", {"table": "k"}), "missing_argument", "needs the argument 'where'", "where"),
    (sent("delete", {"table": "k", "where": {"id": "1"}}), "type_mismatch", "is not a value", "where.id"),
    (sent("replace", {"table": "k", "rows": [{"id": 2, "v": None}]}), "not_null", "not take null", "rows[0].v"),
    (sent("replace", {"table": "k", "rows": [{"id": 2, "v": "x"}] * 2}), "constraint", "twice in the request", "rows"),
]
ARROW = [
    (sent("append", b"", **arrow_headers(table="t")), "bad_arrow", "not a whole Arrow stream", "body"),
    (sent("append", b"garbage" * 9, **arrow_headers(table="t")), "bad_arrow", "not a whole Arrow stream", "body"),
    (sent("append", GOOD_STREAM[:150], **arrow_headers(table="t")), "bad_arrow", "not a whole", "body"),
    (sent("append", GOOD_STREAM), "bad_json", "not UTF-8", "body"),
    (sent("append", GOOD_STREAM, **arrow_headers()), "missing_argument", "'table'", "table"),
    (sent("append", GOOD_STREAM, **arrow_headers(table="t", rows=[])), "bad_argument", "Rows came twice", "rows"),
    (sent("append", GOOD_STREAM, **arrow_headers(table="t", x=1)), "unknown_argument", "no argument 'x'", "x"),
    (sent("append", GOOD_STREAM, **arrow_headers(table="x" * 40_000)), "bad_header", "at most 32768", "Teatree-Args"),
    (sent("append", GOOD_STREAM, **{**arrow_headers(), "Teatree-Args": "{"}), "bad_json", "Not JSON", "Teatree-Args"),
    (
        sent("append", GOOD_STREAM, **{**arrow_headers(), "Teatree-Args": "[]"}),
        "bad_argument",
        "object",
        "Teatree-Args",
    ),
    (sent("query", GOOD_STREAM, **arrow_headers(sql="FROM t")), "bad_content_type", "takes no rows", "Content-Type"),
    (stream("t", pa.array(["x" * 600_000_000]), "zstd"), "body_too_large", "600,000,0", "body"),
    (stream("t", pa.nulls(100_000_000)), "body_too_large", "bytes once decoded", "body"),
    (stream("t", pa.array(["x" * 9**6] * 2000).dictionary_encode()), "body_too_large", "once decoded", "body"),
    (stream("nope", ints(1)), "unknown_column", "There is no column 'nope'", "rows.nope"),
    (stream("i", pa.array([1.9])), "lossy_number", "1.9 would lose digits as INTEGER", "rows[0].i"),
    (stream("i", pa.array([1.0, float("nan")])), "type_mismatch", "nan is not a value of type INTEGER", "rows[1].i"),
    (stream("i", pa.array([float("inf")])), "type_mismatch", "inf is not a value of type INTEGER", "rows[0].i"),
    (stream("i", pa.array(["1"])), "type_mismatch", "is not a value of type INTEGER", "rows[0].i"),
    (stream("i8", ints(1, 128)), "out_of_range", "128 is out of range for TINYINT", "rows[1].i8"),
    (stream("i16", ints(2**15)), "out_of_range", "out of range for SMALLINT", "rows[0].i16"),
    (stream("i", ints(2**31)), "out_of_range", "out of range for INTEGER", "rows[0].i"),
    (stream("b", pa.array([2**63], pa.uint64())), "out_of_range", "out of range for BIGINT", "rows[0].b"),
    (stream("u", ints(-1)), "out_of_range", "-1 is out of range for UBIGINT", "rows[0].u"),
    (stream("uh", ints(-1)), "out_of_range", "out of range for UHUGEINT", "rows[0].uh"),
    (stream("b", pa.array([2.0**63])), "out_of_range", "out of range for BIGINT", "rows[0].b"),
    (stream("u", pa.array([2.0**64])), "out_of_range", "out of range for UBIGINT", "rows[0].u"),
    (stream("d", ints(2**53 + 1)), "lossy_number", "9007199254740993 would lose digits as DOUBLE", "rows[0].d"),
    (stream("f", pa.array([0.1])), "lossy_number", "would lose digits as FLOAT", "rows[0].f"),
    (stream("dec", pa.array([1.005])), "lossy_number", "would lose digits as DECIMAL(10,2)", "rows[0].dec"),
    (stream("dec", ints(10**8)), "out_of_range", "out of range for DECIMAL(10,2)", "rows[0].dec"),
    (stream("ts", pa.array([1], pa.timestamp("ns"))), "lossy_number", "would lose digits as TIMESTAMP", "rows[0].ts"),
    (stream("ts", pa.array([2**60], pa.timestamp("s"))), "out_of_range", "out of range for TIMESTAMP", "rows[0].ts"),
    (stream("t", pa.array([b"\xff"], pa.binary()).view(pa.string())), "bad_arrow", "UTF8", "body"),
    (stream("t", pa.array([b"\xff"], pa.binary())), "type_mismatch", "not a value of type VARCHAR", "rows[0].t"),
    (stream("e", pa.array(["c"])), "type_mismatch", "is not a value of type ENUM", "rows[0].e"),
    (stream("l", pa.array([[1, 2**40]])), "out_of_range", "out of range for INTEGER", "rows[0].l[1]"),
    (stream("t", pa.array([{"x": 1}])), "type_mismatch", "is not a value of type VARCHAR", "rows[0].t"),
]
NAMES = [
    (create(name), "bad_name", part, "table")
    for name, part in {
        "": "is not a name", "..": "is not a table name", "../x": "is not a table name", "a/b": "is not a table name",
        "a\\b": "is not a table name", "a*": "is not a table name", "a>b": "is not a table name",
        "a?": "is not a table name", " a": "is not a table name", "a ": "is not a table name",
        "a\nb": "cannot be printed", "a\0b": "cannot be printed", "a\u202eb": "cannot be printed",
        "x" * 256: "is not a", "é" * 128: "is not a", "\ud800": "cannot be printed",
        "_teatree": "is reserved", "_teatree.commits": "is reserved", "_TEATREE_x": "is reserved",
    }.items()
]  # fmt: skip
TABLES_AND_COLUMNS = [
    (create("good"), "table_exists", "There is a table 'good' already", "table"),
    (create("GOOD"), "table_exists", "There is a table 'GOOD' already", "table"),
    (columns(), "missing_argument", "at least one column", "columns"),
    (columns(1), "bad_argument", "A column is an object", "columns[0]"),
    (columns({"name": "a"}), "missing_argument", "needs a text 'type'", "columns[0].type"),
    (columns(column(type=1)), "missing_argument", "needs a text 'type'", "columns[0].type"),
    (columns(column(type="NOPE")), "bad_argument", "is not a type", "columns[0].type"),
    (columns(column(type="UNION(a INTEGER)")), "bad_argument", "is not a type", "columns[0].type"),
    (columns(column(type="INTEGER); DROP TABLE good; --")), "bad_argument", "follows the type", "columns[0].type"),
    (columns(column(type="DECIMAL(39,1)")), "bad_argument", "1 to 38 digits, not 39", "columns[0].type"),
    (columns(column(type="INTEGER" + "[]" * 100)), "bad_argument", "nested more than", "columns[0].type"),
    (columns(column(), column(name="A")), "column_exists", "'A' is named twice", "columns[1].name"),
    (columns(column(name="")), "bad_name", "is not a name", "columns[0].name"),
    (columns(column(name="_teatree")), "bad_name", "is reserved", "columns[0].name"),
    (columns(column(nullable="no")), "bad_argument", "must be true or false", "columns[0].nullable"),
    (columns(column(check="a > 1")), "unknown_argument", "no member 'check'", "columns[0].check"),
    (columns(column(default="x")), "type_mismatch", "is not a value of type INTEGER", "columns[0].default"),
    (columns(column(default=1.5)), "lossy_number", "would lose digits", "columns[0].default"),
    (columns(*[column(f"c{i}") for i in range(5_000)]), "bad_argument", "at most 4096 columns", "columns"),
    (columns(column(), primary_key=["nope"]), "unknown_column", "There is no column 'nope'", "primary_key[0]"),
    (columns(column(), primary_key=["a", "A"]), "bad_argument", "names a column twice", "primary_key"),
    (columns(column(), primary_key="a"), "bad_argument", "must be a list", "primary_key"),
    (columns(column(), primary_key=[1]), "bad_argument", "must be a text", "primary_key[0]"),
    (columns(column(type="INTEGER[]"), primary_key=["a"]), "type_mismatch", "primary key cannot be", "primary_key[0]"),
    (columns(column(), if_not_exists=1), "bad_argument", "must be true or false", "if_not_exists"),
    (alter("k"), "bad_argument", "one of 'add', 'drop' and 'rename'", "add"),
    (alter("k", drop="v", rename={"v": "w"}), "bad_argument", "one of 'add', 'drop' and 'rename'", "add"),
    (alter("nope", drop="v"), "unknown_table", "There is no table 'nope'", "table"),
    (alter("_teatree.commits", drop="v"), "unknown_table", "There is no table '_teatree.commits'", "table"),
    (alter("k", drop="nope"), "unknown_column", "There is no column 'nope'", "drop"),
    (alter("k", drop="ID"), "constraint", "'id' belongs to the primary key", "drop"),
    (alter("good", drop="n"), "constraint", "'n' is the last one of 'good'", "drop"),
    (alter("k", rename={"v": "ID"}), "column_exists", "There is a column 'ID' already", "rename.v"),
    (alter("k", rename={"nope": "x"}), "unknown_column", "There is no column 'nope'", "rename"),
    (alter("k", rename={"v": "_teatree"}), "bad_name", "is reserved", "rename.v"),
    (alter("k", rename={}), "bad_argument", "one old and one new name", "rename"),
    (alter("k", add={"name": "V", "type": "INTEGER"}), "column_exists", "There is a column 'V' already", "add.name"),
    (alter("k", add=column("w", nullable=False)), "bad_argument", "has no default", "add"),
    (sent("drop_table", {"table": "nope"}), "unknown_table", "There is no table 'nope'", "table"),
    (sent("drop_table", {"table": "_teatree.commits"}), "unknown_table", "There is no table", "table"),
    (sent("drop_table", {"table": "commits"}), "unknown_table", "There is no table 'commits'", "table"),
]
CASES = [*REQUESTS, *JSON, *KEYS, *ARROW, *NAMES, *TABLES_AND_COLUMNS]


@pytest.mark.parametrize(("request_", "code", "part", "where"), CASES)
def test_a_bad_request_is_rejected_with_its_cause_and_place(
    model: OneWriter, request_: Sent, code: str, part: str, where: str
) -> None:
    """A bad request is rejected with a code, a sentence and a place, and the requests beside it are done."""
    outcome = model.between(request_)
    error = outcome.error or {}
    assert (outcome.status, error.get("code")) == (Status.REJECTED, code), error
    assert part in error["message"]
    assert error["where"] == where or (len(error["where"]) == 300 and error["where"].startswith(where))
    check_sentence(error["message"])


def check_sentence(message: str) -> None:
    """Check that people can read it: no line breaks, bounded length, no internal names."""
    assert "\n" not in message
    assert len(message) <= 2_000
    assert message.endswith((".", "…", "?")), message
    for word in (" Error: ", "teatree_rows", "teatree_change", "INT32", "INT64", "LINE 1", "Traceback", "models/"):
        assert word not in message


def test_a_key_that_a_neighbour_has_just_inserted_is_refused(model: OneWriter) -> None:
    """Of two requests in one batch with the same key the first is done and the second rejected."""
    first, second, third = model.apply(k({"id": 7, "v": "a"}), k({"id": 7, "v": "b"}), k({"id": 8, "v": "c"}))
    assert [o.status for o in (first, second, third)] == [Status.DONE, Status.REJECTED, Status.DONE]
    assert second.error is not None
    assert second.error["code"] == "constraint"
    assert model.rows("SELECT v FROM k WHERE id IN (7, 8) ORDER BY id") == [{"v": "a"}, {"v": "c"}]
    model.apply(Sent("delete", {"table": "k", "where": {"id": 7}}), Sent("delete", {"table": "k", "where": {"id": 8}}))


def test_an_id_used_again_for_another_body_is_refused(model: OneWriter) -> None:
    """A second body under a used id is rejected, in the same batch and in a later one; the first body again is done."""
    one = Sent("append", {"table": "t", "rows": []}, {"Teatree-Request-Id": "twice"})
    other = Sent("delete", {"table": "t", "where": {}}, {"Teatree-Request-Id": "twice"})
    for outcomes in (model.apply(one, other, one), model.apply(one, other, one)):
        assert [o.status for o in outcomes] == [Status.DONE, Status.REJECTED, Status.DONE]
        assert (outcomes[1].error or {})["code"] == "request_id_reused"


def test_many_bad_requests_in_one_batch_harm_none_of_the_good(model: OneWriter) -> None:
    """Good and bad requests alternate in one batch, and each has its own outcome."""
    bad = [case[0] for case in (*JSON, *KEYS) if isinstance(case[0].body, bytes | dict)]
    good = Sent("append", {"table": "t", "rows": [{"i": 1}]})
    outcomes = model.apply(*(one for pair in zip([good] * len(bad), bad, strict=True) for one in pair))
    assert {o.status for o in outcomes[::2]} == {Status.DONE}
    assert {o.status for o in outcomes[1::2]} == {Status.REJECTED}
    assert model.rows("SELECT count(*) AS rows FROM t") == [{"rows": len(bad)}]
    model.apply(Sent("delete", {"table": "t", "where": {}}))
