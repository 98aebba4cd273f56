"""The conversion of Arrow columns to JSON values, for pages of results.

A number that a JSON reader's double would round becomes a string: integers beyond 2^53, decimals beyond 15 digits.
NaN and the infinities become the strings `NaN`, `Infinity` and `-Infinity`. Days, times and moments are ISO 8601 (a
moment in UTC ends with `Z`), blobs Base64, intervals ISO 8601 durations. Maps with text keys are objects, others lists
of pairs. JSON is the value itself. `values.converter` takes all of it back.
"""

from __future__ import annotations

import base64
import decimal
import math
import uuid
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from teatree.contracts.errors import RequestError
from teatree.contracts.formats.codec import parse_json
from teatree.contracts.types.dtypes import (
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
    Map,
    Time,
    Timestamp,
    TimeTz,
    Uuid,
    Varchar,
)
from teatree.contracts.types.schema import Schema
from teatree.datasets import iso
from teatree.datasets.arrow.nested import nested_values, one_chunk, storage
from teatree.datasets.arrow.types import from_arrow_schema

_EXACT_INTEGER_MAX = 2**53
_EXACT_DIGITS = 15
"""Decimal digits that every double keeps."""


def rows_to_json(table: pa.Table, schema: Schema | None = None, *, as_written: bool = False) -> list[dict[str, Any]]:
    """Return a table's rows as JSON objects; `schema` gives types where the table's own are less specific.

    A JSON column's values are Python's, or with `as_written` their texts, which `dump_json` writes as they are.
    """
    columns = list(schema or from_arrow_schema(table.schema))
    names = [column.name for column in columns]
    values = [
        json_column(one_chunk(table.column(i)), column.dtype, as_written=as_written) if table.num_rows else []
        for i, column in enumerate(columns)
    ]
    return [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)]


def columns_to_json(schema: Schema) -> list[dict[str, str]]:
    """Return the description of a page's columns: `name` and `type`."""
    return [{"name": column.name, "type": str(column.dtype)} for column in schema]


def json_column(array: pa.Array, dtype: Dtype, *, as_written: bool = False) -> list[Any]:
    """Return the JSON values of one array."""

    def leaf(array: pa.Array, dtype: Dtype) -> list[Any]:
        if as_written and isinstance(dtype, Json):
            return _each(storage(array), _written)
        return _leaf(array, dtype)

    return nested_values(array, dtype, leaf, _json_map)


def _leaf(array: pa.Array, dtype: Dtype) -> list[Any]:
    match dtype:
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
            return lambda v: _number(int.from_bytes(v, "little", signed=signed) if isinstance(v, bytes) else int(v))
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


def _json_map(dtype: Map, pairs: list[tuple[Any, Any]]) -> Any:
    return dict(pairs) if isinstance(dtype.key, Varchar | Enum) else [list(pair) for pair in pairs]


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


def _bits(value: bytes | str) -> str:
    if isinstance(value, str):
        return value
    return bin(int.from_bytes(b"\1" + value[1:], "big"))[3 + value[0] :]


def _time_tz(value: bytes | str) -> str:
    if isinstance(value, str):
        return value
    packed = int.from_bytes(value, "little")
    return iso.format_time_tz(packed >> 24, iso.OFFSET_SECONDS_MAX - (packed & 0xFFFFFF))


def _interval(value: Any) -> str:
    months, days, nanoseconds = value
    return iso.format_duration(months, days, nanoseconds // 1000)


def _written(text: str) -> Any:
    """Return JSON text as it is, for a JSON document to hold: its numbers keep all their digits."""
    return orjson.Fragment(text) if _is_json(text) else text


def _parsed(text: str) -> Any:
    """Return a JSON text's value, whose numbers keep all their digits: int, and Decimal where a float would not do."""
    try:
        return _plain_numbers(parse_json(text.encode()))
    except RequestError:
        return text  # DuckDB takes some texts that are not JSON, or name a key twice: they are shown as texts


def _is_json(text: str) -> bool:
    try:
        parse_json(text.encode())
    except RequestError:
        return False
    return True


def _plain_numbers(value: Any) -> Any:
    match value:
        case decimal.Decimal():
            nearest = float(value)
            return nearest if decimal.Decimal(repr(nearest)) == value else value
        case list():
            return [_plain_numbers(element) for element in value]
        case dict():
            return {key: _plain_numbers(member) for key, member in value.items()}
        case _:
            return value
