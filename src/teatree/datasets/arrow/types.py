"""Types in Arrow: what each `Dtype` is there, both ways.

DuckDB uses these types when `lossless(con)` was called: HUGEINT, UHUGEINT, BIT and TIMETZ as its own `arrow.opaque`
extensions (in results they are decimals and texts: `results.plain_table`), UUID and JSON as Arrow's canonical ones. An
ENUM is a dictionary, whose type does not hold its values: those are in the field's metadata, as the text of the whole
column's type.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from teatree.contracts.errors import Code, RequestError
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
from teatree.contracts.types.schema import Field, Schema, parse_read_dtype

if TYPE_CHECKING:
    import duckdb

TYPE_KEY = b"teatree.type"
"""Key of a field's metadata: the text of the column's type, where Arrow's own type is less specific."""
_VENDOR = "DuckDB"
_OPAQUE: dict[Dtype, tuple[str, pa.DataType]] = {
    Integer(128): ("hugeint", pa.binary(16)),
    Integer(128, signed=False): ("uhugeint", pa.binary(16)),
    Bit(): ("bit", pa.binary()),
    TimeTz(): ("time_tz", pa.binary(8)),
}
_PLAIN: dict[Dtype, pa.DataType] = {
    Boolean(): pa.bool_(),
    Integer(8): pa.int8(),
    Integer(16): pa.int16(),
    Integer(32): pa.int32(),
    Integer(64): pa.int64(),
    Integer(8, signed=False): pa.uint8(),
    Integer(16, signed=False): pa.uint16(),
    Integer(32, signed=False): pa.uint32(),
    Integer(64, signed=False): pa.uint64(),
    Float(32): pa.float32(),
    Float(64): pa.float64(),
    Varchar(): pa.string(),
    Blob(): pa.binary(),
    Date(): pa.date32(),
    Time(): pa.time64("us"),
    Time("ns"): pa.time64("ns"),
    Timestamp("s"): pa.timestamp("s"),
    Timestamp("ms"): pa.timestamp("ms"),
    Timestamp("us"): pa.timestamp("us"),
    Timestamp("ns"): pa.timestamp("ns"),
    Timestamp("us", tz=True): pa.timestamp("us", "UTC"),
    Timestamp("ns", tz=True): pa.timestamp("ns", "UTC"),
    Interval(): pa.month_day_nano_interval(),
    Uuid(): pa.uuid(),
    Json(): pa.json_(),
    **{dtype: pa.opaque(storage, name, _VENDOR) for dtype, (name, storage) in _OPAQUE.items()},
}
# Types that hold the same values as one of ours.
_FROM_ARROW: dict[pa.DataType, Dtype] = {
    **{arrow: dtype for dtype, arrow in _PLAIN.items()},
    pa.null(): Integer(),  # what DuckDB makes of a NULL without a type, when it has to choose
    pa.bool8(): Boolean(),
    pa.float16(): Float(32),
    pa.large_string(): Varchar(),
    pa.string_view(): Varchar(),
    pa.large_binary(): Blob(),
    pa.binary_view(): Blob(),
    pa.date64(): Date(),
    pa.time32("s"): Time(),
    pa.time32("ms"): Time(),
    **{pa.duration(unit): Interval() for unit in ("s", "ms", "us", "ns")},
}


def lossless(con: duckdb.DuckDBPyConnection, *, of_session: bool = False) -> None:
    """Make a database hand out Arrow data in which no type is changed; before its configuration is locked.

    Without it a HUGEINT beyond 38 digits stops the whole database when it is handed out. With `of_session`, only this
    connection does so.
    """
    scope = "SESSION" if of_session else "GLOBAL"
    con.execute(f"SET {scope} arrow_lossless_conversion = true").fetchall()


def to_arrow_type(dtype: Dtype) -> pa.DataType:
    """Return the Arrow type that holds exactly the values of `dtype`."""
    match dtype:
        case Decimal(precision=precision, scale=scale):
            return pa.decimal128(precision, scale)
        case Enum(values=values):
            return pa.dictionary(_index_type(len(values)), pa.string())
        case List(of=of):
            return pa.list_(pa.field("item", element_type(of)))
        case Array(of=of, length=length):
            return pa.list_(pa.field("item", element_type(of)), length)
        case Struct(fields=fields):
            return pa.struct([pa.field(member.name, element_type(member.dtype)) for member in fields])
        case Map(key=key, value=value):
            return pa.map_(element_type(key), element_type(value))
        case _:
            return _PLAIN[dtype]


def element_type(dtype: Dtype) -> pa.DataType:
    """Return the Arrow type of values within a nested type: an ENUM is a text there.

    DuckDB 2.0 fails on a batch in which all lists over a dictionary are empty, and twice nested its database stops.
    """
    return pa.string() if isinstance(dtype, Enum) else to_arrow_type(dtype)


def from_arrow_type(arrow: pa.DataType, where: str = "type") -> Dtype:
    """Return the type of columns that holds the values of an Arrow type; raises `type_mismatch` if there is none."""
    if (plain := _FROM_ARROW.get(arrow)) is not None:
        return plain
    if pa.types.is_decimal(arrow) and arrow.precision <= 38 and 0 <= arrow.scale <= arrow.precision:
        return Decimal(arrow.precision, arrow.scale)
    if pa.types.is_fixed_size_binary(arrow):
        return Blob()
    if pa.types.is_timestamp(arrow):
        return Timestamp("ns" if arrow.unit == "ns" else "us", tz=True)  # naive ones are in the table above
    if pa.types.is_dictionary(arrow):
        return from_arrow_type(arrow.value_type, where)
    if pa.types.is_list(arrow) or pa.types.is_large_list(arrow):
        return List(from_arrow_type(arrow.value_type, where))
    if pa.types.is_fixed_size_list(arrow):
        return Array(from_arrow_type(arrow.value_type, where), arrow.list_size)
    if pa.types.is_struct(arrow):
        return Struct(tuple(StructField(f.name, from_arrow_type(f.type, f"{where}.{f.name}")) for f in arrow))
    if pa.types.is_map(arrow):
        return Map(from_arrow_type(arrow.key_type, where), from_arrow_type(arrow.item_type, where))
    raise RequestError(
        Code.TYPE_MISMATCH, f"No column holds the Arrow type {arrow}.", where=where, hint="Cast it to another type."
    )


def to_arrow_field(column: Field) -> pa.Field:
    """Return a column as an Arrow field."""
    arrow = to_arrow_type(column.dtype)
    same = _recovered(arrow) == column.dtype
    return pa.field(column.name, arrow, column.nullable, None if same else {TYPE_KEY: str(column.dtype).encode()})


def to_arrow_schema(schema: Schema) -> pa.Schema:
    """Return the Arrow schema of a table's rows; defaults are not part of it."""
    return pa.schema([to_arrow_field(column) for column in schema])


def from_arrow_schema(arrow: pa.Schema) -> Schema:
    """Return the columns of an Arrow schema; raises `type_mismatch` for a type that no column holds."""
    return Schema(tuple(_from_arrow_field(field, f"columns[{i}]") for i, field in enumerate(arrow)))


def _from_arrow_field(field: pa.Field, where: str) -> Field:
    text = (field.metadata or {}).get(TYPE_KEY)
    if text is not None:
        named = parse_read_dtype(text.decode("utf-8", "replace"), where)
        if _holds(field.type, named):
            return Field(field.name, named, field.nullable)
    return Field(field.name, from_arrow_type(field.type, where), field.nullable)


def _holds(arrow: pa.DataType, dtype: Dtype) -> bool:
    """Whether a field of an Arrow type can hold the values of the type that its metadata names."""
    match dtype:
        case Integer(bits=128) if pa.types.is_decimal(arrow):
            return bool(arrow.scale == 0)
        case Bit() | TimeTz() if pa.types.is_string(arrow):
            return True
        case Enum() if pa.types.is_dictionary(arrow) or pa.types.is_string(arrow):
            return True
        case List(of=of) if pa.types.is_list(arrow):
            return _holds(arrow.value_type, of)
        case Array(of=of, length=length) if pa.types.is_fixed_size_list(arrow):
            return arrow.list_size == length and _holds(arrow.value_type, of)
        case Struct(fields=fields) if pa.types.is_struct(arrow):
            names = [member.name for member in fields]
            return names == [f.name for f in arrow] and all(
                _holds(f.type, member.dtype) for f, member in zip(arrow, fields, strict=True)
            )
        case Map(key=key, value=value) if pa.types.is_map(arrow):
            return _holds(arrow.key_type, key) and _holds(arrow.item_type, value)
        case _:
            return bool(to_arrow_type(dtype) == arrow)


def _recovered(arrow: pa.DataType) -> Dtype | None:
    try:
        return from_arrow_type(arrow)
    except RequestError:
        return None  # not an error: the type is then in the metadata


def _index_type(count: int) -> pa.DataType:
    kinds: Sequence[tuple[int, pa.DataType]] = ((1 << 8, pa.uint8()), (1 << 16, pa.uint16()))
    return next((kind for limit, kind in kinds if count <= limit), pa.uint32())
