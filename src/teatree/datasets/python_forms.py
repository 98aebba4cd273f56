"""Python's own values in rows, as the JSON values of their column's type: a date as its text, bytes as Base64.

A value is only taken for a type that means the same: a date for a DATE, not for a VARCHAR. What no type takes is left
as it is, and refused by the type's converter.
"""

from __future__ import annotations

import base64
import dataclasses
import decimal
import math
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta
from enum import Enum as PythonEnum
from typing import Any
from uuid import UUID

import attrs
import numpy as np
import pyarrow as pa

from teatree.contracts.errors import Code
from teatree.contracts.types.dtypes import (
    Array,
    Blob,
    Date,
    Decimal,
    Dtype,
    Interval,
    Json,
    List,
    Map,
    Struct,
    Time,
    Timestamp,
    TimeTz,
    Uuid,
)
from teatree.datasets.bad_value import BadValueError, lossy, mismatch
from teatree.datasets.values import Convert, converter

_JSON_TYPES = frozenset({type(None), bool, int, float, str, decimal.Decimal})
_JSON_DEPTH_MAX = 250
_MICROSECOND = timedelta(microseconds=1)


def python_converter(dtype: Dtype, *, nullable: bool = True) -> Convert:
    """Return the function that converts one Python or JSON value for a column, or raises `BadValueError`."""
    convert = converter(dtype, nullable=nullable)
    if isinstance(dtype, Json):
        return lambda value: convert(_json(value, 0))

    def from_python(value: Any) -> Any:
        return convert(value if type(value) in _JSON_TYPES else _form(value, dtype))

    return from_python


def members_of(value: Any) -> dict[Any, Any] | None:
    """Return the members of a mapping, or of an instance of attrs or a dataclass; None for anything else."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, type):
        return None
    if attrs.has(type(value)):
        return {field.name: getattr(value, field.name) for field in attrs.fields(type(value))}
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return None


def plain(value: Any) -> Any:
    """Return a value of Python's own types for an enum's member, a numpy scalar or a text of another class."""
    if isinstance(value, PythonEnum):
        return plain(value.value)
    if isinstance(value, np.datetime64):
        return str(np.datetime_as_string(value))
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, str):
        return str.__str__(value)
    return value


def _form(value: Any, dtype: Dtype) -> Any:
    if type(value) in _JSON_TYPES:
        return value
    if isinstance(value, np.float32 | np.float16) and isinstance(dtype, Decimal):
        return decimal.Decimal(str(value))  # its shortest digits, as a column of an Arrow table
    value = plain(value)
    match dtype:
        case Date() | Time() | TimeTz() | Timestamp() | Interval():
            return _time_form(value, dtype)
        case Uuid():
            return str(value) if isinstance(value, UUID) else value
        case Blob():
            return base64.b64encode(value).decode() if isinstance(value, bytes | bytearray | memoryview) else value
        case List(of=of) | Array(of=of):
            return [_nested(element, of, f"[{i}]") for i, element in enumerate(value)] if _is_list(value) else value
        case Struct():
            return _struct(value, dtype)
        case Map():
            return _map(value, dtype)
        case _:
            return value


def _nested(value: Any, dtype: Dtype, step: str) -> Any:
    try:
        return _json(value, 0) if isinstance(dtype, Json) else _form(value, dtype)
    except BadValueError as e:
        e.path = step + e.path
        raise


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple | np.ndarray)


def _time_form(value: Any, dtype: Dtype) -> Any:
    match dtype:
        case Date():
            return value.isoformat() if isinstance(value, date) and not isinstance(value, datetime) else value
        case Time() | TimeTz():
            return value.isoformat() if isinstance(value, time) else value
        case Timestamp(tz=tz):
            return _moment(value, tz=tz) if isinstance(value, datetime) else value
        case Interval():
            return _interval(value)
        case _:
            return value


def _moment(value: datetime, *, tz: bool) -> str:
    if tz and value.tzinfo is not None:
        with suppress(OverflowError):  # its first or last hours: their offset stays in the text
            value = value.astimezone(UTC)
    return value.isoformat()


def _interval(value: Any) -> Any:
    if isinstance(value, timedelta):
        return {"micros": value // _MICROSECOND}
    if isinstance(value, pa.MonthDayNano):  # what an INTERVAL is in rows that were read
        months, days, nanos = value
        if nanos % 1000:
            lossy(value, Interval())
        return {"months": months, "days": days, "micros": nanos // 1000}
    return dict(value) if isinstance(value, Mapping) else value


def _struct(value: Any, dtype: Struct) -> Any:
    members = members_of(value)
    if members is None:
        return value
    types = {member.name: member.dtype for member in dtype.fields}
    for name in members:
        if type(name) is not str:
            mismatch(name, dtype, "is no name of a member")
    return {
        name: _nested(member, types[name], f".{name}") if name in types else plain(member)
        for name, member in members.items()
    }


def _map(value: Any, dtype: Map) -> Any:
    """Return pairs of keys and values; an object if all keys are texts, as JSON has it."""
    if isinstance(value, Mapping) and all(type(key) is str for key in value):
        return {key: _nested(member, dtype.value, f".{key}") for key, member in value.items()}
    if isinstance(value, Mapping):
        value = list(value.items())
    if not _is_list(value) or not all(_is_list(pair) and len(pair) == 2 for pair in value):
        return value
    return [
        [_nested(key, dtype.key, f"[{i}]"), _nested(member, dtype.value, f"[{i}]")]
        for i, (key, member) in enumerate(value)
    ]


def _json(value: Any, depth: int) -> Any:
    """Return a JSON value; dates, times and UUIDs are their texts in JSON."""
    if depth > _JSON_DEPTH_MAX:
        raise BadValueError(Code.TYPE_MISMATCH, f"The value is nested more than {_JSON_DEPTH_MAX} levels deep.")
    value = plain(value)
    if isinstance(value, float) and not math.isfinite(value):
        mismatch(value, Json(), "is no number of JSON")
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    if _is_list(value):
        return [_json(element, depth + 1) for element in value]
    members = members_of(value)
    if members is None:
        return value
    for name in members:
        if type(name) is not str:
            mismatch(name, Json(), "is no name in JSON, which has texts")
    return {name: _json(member, depth + 1) for name, member in members.items()}
