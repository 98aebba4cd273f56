"""Arrow columns into JSON values, for pages of results.

A number that a JSON reader's double would round becomes a string: integers beyond 2^53, decimals beyond 15 digits.
NaN and the infinities become the strings `NaN`, `Infinity` and `-Infinity`. Days, times and moments are ISO 8601 (a
moment in UTC ends with `Z`), blobs Base64, intervals ISO 8601 durations. Maps with text keys are objects, others lists
of pairs. JSON is the value itself. `values.converter` takes all of it back.
"""

from __future__ import annotations

import base64
import decimal
import json
import math
import uuid
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from teatree.contracts.dtypes import (
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
from teatree.contracts.schema import Schema
from teatree.datasets import iso
from teatree.datasets.arrow import from_arrow_schema
from teatree.datasets.nested import list_parts, one_chunk, storage, struct_parts

_EXACT_INTEGER_MAX = 2**53
_EXACT_DIGITS = 15
"""Decimal digits that every double keeps."""


def rows_to_json(table: pa.Table, schema: Schema | None = None) -> list[dict[str, Any]]:
    """Return a table's rows as JSON objects; `schema` tells types where the table's own say less."""
    columns = list(schema or from_arrow_schema(table.schema))
    names = [column.name for column in columns]
    values = [
        json_column(one_chunk(table.column(i)), column.dtype) if table.num_rows else []
        for i, column in enumerate(columns)
    ]
    return [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)]


def columns_to_json(schema: Schema) -> list[dict[str, str]]:
    """Return the description of a page's columns: `name` and `type`."""
    return [{"name": column.name, "type": str(column.dtype)} for column in schema]


def json_column(array: pa.Array, dtype: Dtype) -> list[Any]:
    """Return the JSON values of one array."""
    match dtype:
        case List() | Array():
            return _lists(array, dtype.of)
        case Struct():
            return _structs(array, dtype)
        case Map():
            return _maps(array, dtype)
        case Date():
            return _each(array.cast(pa.date32()).view(pa.int32()), iso.format_date)
        case Time(unit=unit):
            return _each(array.cast(pa.time64(unit)).view(pa.int64()), lambda v: iso.format_time(v, unit))
        case Timestamp(unit=unit, tz=tz):
            counts = array.view(pa.int64())
            own_unit = array.type.unit
            return _each(counts, lambda v: iso.format_timestamp(v, own_unit or unit, tz=tz))
        case Float(bits=32):
            return _each(storage(array), _short_float)
        case Boolean():
            return list(storage(array).cast(pa.bool_()).to_pylist())
        case Varchar() | Enum():
            return list(storage(array).to_pylist())
        case _:
            return _each(storage(array), _plain_json(dtype))


def _plain_json(dtype: Dtype) -> Callable[[Any], Any]:
    match dtype:
        case Integer(bits=128, signed=signed):
            return lambda v: _number(v if isinstance(v, int) else int.from_bytes(v, "little", signed=signed))
        case Integer():
            return _number
        case Float():
            return _float
        case Decimal(precision=precision, scale=scale):
            return _decimal(precision, scale)
        case Blob():
            return lambda v: base64.b64encode(v).decode("ascii")
        case Bit():
            return _bits
        case TimeTz():
            return _time_tz
        case Interval():
            return _interval
        case Uuid():
            return lambda v: str(uuid.UUID(bytes=v))
        case Json():
            return _parsed
        case _:
            raise TypeError(f"{dtype} has no JSON form")


def _each(array: pa.Array, convert: Callable[[Any], Any]) -> list[Any]:
    return [None if value is None else convert(value) for value in array.to_pylist()]


def _lists(array: pa.Array, of: Dtype) -> list[Any]:
    parts = list_parts(array)
    elements = iter(json_column(parts.elements, of))
    return [
        None if null else [next(elements) for _ in range(length)]
        for length, null in zip(parts.lengths.tolist(), parts.is_null.to_pylist(), strict=True)
    ]


def _structs(array: pa.Array, dtype: Struct) -> list[Any]:
    names = [member.name for member in dtype.fields]
    members = [json_column(part, member.dtype) for part, member in zip(struct_parts(array), dtype.fields, strict=True)]
    return [
        None if null else dict(zip(names, row, strict=True))
        for null, *row in zip(array.is_null().to_pylist(), *members, strict=True)
    ]


def _maps(array: pa.Array, dtype: Map) -> list[Any]:
    parts = list_parts(array)
    keys, values = struct_parts(parts.elements)
    pairs = zip(json_column(keys, dtype.key), json_column(values, dtype.value), strict=True)
    rows = [
        None if null else [next(pairs) for _ in range(length)]
        for length, null in zip(parts.lengths.tolist(), parts.is_null.to_pylist(), strict=True)
    ]
    if isinstance(dtype.key, Varchar | Enum):
        return [None if row is None else dict(row) for row in rows]
    return [None if row is None else [list(pair) for pair in row] for row in rows]


def _number(value: int) -> int | str:
    return value if -_EXACT_INTEGER_MAX <= value <= _EXACT_INTEGER_MAX else str(value)


def _float(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _short_float(value: float) -> float | str:
    """Return the shortest decimal that is the same 32-bit float: 0.1, not 0.10000000149011612."""
    return float(str(np.float32(value))) if math.isfinite(value) else _float(value)


def _decimal(precision: int, scale: int) -> Callable[[decimal.Decimal], float | str]:
    limit = decimal.Decimal(10) ** (_EXACT_DIGITS - scale)
    if precision <= _EXACT_DIGITS:
        return float
    return lambda value: float(value) if abs(value) < limit else format(value, "f")


def _bits(value: bytes) -> str:
    return bin(int.from_bytes(b"\1" + value[1:], "big"))[3 + value[0] :]


def _time_tz(value: bytes) -> str:
    packed = int.from_bytes(value, "little")
    return iso.format_time_tz(packed >> 24, iso.OFFSET_SECONDS_MAX - (packed & 0xFFFFFF))


def _interval(value: Any) -> str:
    months, days, nanoseconds = value
    return iso.format_duration(months, days, nanoseconds // 1000)


def _parsed(text: str) -> Any:
    try:
        return _JSON.decode(text)
    except (ValueError, RecursionError):
        return text  # DuckDB keeps what a file's JSON column held, right or wrong: it is shown as the text it is


def _json_number(text: str) -> float | str:
    value = float(text)
    same = math.isfinite(value) and decimal.Decimal(text) == decimal.Decimal(repr(value))
    return value if same else text


_JSON = json.JSONDecoder(
    parse_float=_json_number, parse_int=lambda text: _number(int(text)) if len(text) < 400 else text
)
