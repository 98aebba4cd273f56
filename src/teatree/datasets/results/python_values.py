"""The conversion of Arrow columns to Python values: exact, or JSON's text where Python has no such value."""

from __future__ import annotations

import uuid
from typing import Any

import pyarrow as pa

from teatree.contracts.types.dtypes import Bit, Boolean, Date, Dtype, Integer, Json, Map, Time, Timestamp, TimeTz, Uuid
from teatree.datasets.arrow.nested import nested_values, storage
from teatree.datasets.iso import DAY_SECONDS, PER_SECOND
from teatree.datasets.results.json_values import json_column


def python_column(array: pa.Array, dtype: Dtype) -> list[Any]:
    """Return the values of one array; a MAP is a list of pairs, JSON its text."""
    return nested_values(array, dtype, _leaf, _pairs)


def _pairs(_: Map, pairs: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    return pairs


def _leaf(array: pa.Array, dtype: Dtype) -> list[Any]:
    match dtype:
        case Integer(bits=128):
            return [None if value is None else int(value) for value in json_column(array, dtype)]
        case Bit() | TimeTz() | Boolean():
            return json_column(array, dtype)
        case Date() | Time() | Timestamp():
            return _moments(array, dtype)
        case Uuid():
            return [None if value is None else uuid.UUID(bytes=value) for value in storage(array).to_pylist()]
        case Json():
            return list(storage(array).to_pylist())
        case _:
            return list(array.to_pylist())


def uuid_texts(array: pa.Array) -> pa.Array:
    """Return the texts of UUIDs, for what has no type for them."""
    return pa.array([None if value is None else str(value) for value in _leaf(array, Uuid())], pa.string())


def _moments(array: pa.Array, dtype: Date | Time | Timestamp) -> list[Any]:
    """Return dates and times; those that Python's lack (infinity, the year 10000, 24:00:00, nanoseconds) as texts."""
    if not isinstance(dtype, Date) and dtype.unit == "ns":
        return _nano_moments(array, dtype)
    try:
        found = list(array.to_pylist())
    except (ValueError, OverflowError):
        found = [_moment(array.slice(place, 1), dtype) for place in range(len(array))]
    if isinstance(dtype, Time):  # PyArrow takes the end of the day for its beginning
        day = DAY_SECONDS * PER_SECOND[dtype.unit]
        return ["24:00:00" if count == day else at for at, count in zip(found, _counts(array), strict=True)]
    return found


def _nano_moments(array: pa.Array, dtype: Time | Timestamp) -> list[Any]:
    """Return times of nanoseconds: PyArrow cuts those of a day, and others depend on whether pandas is there."""
    is_time = isinstance(dtype, Time)
    micros = array.cast(pa.time64("us") if is_time else pa.timestamp("us", array.type.tz), safe=False).to_pylist()
    day = DAY_SECONDS * PER_SECOND["ns"] if is_time else None
    return [
        json_column(array.slice(place, 1), dtype)[0] if count is not None and (count % 1000 or count == day) else at
        for place, (at, count) in enumerate(zip(micros, _counts(array), strict=True))
    ]


def _counts(array: pa.Array) -> list[int | None]:
    return list(array.view(pa.int64()).to_pylist())


def _moment(one: pa.Array, dtype: Dtype) -> Any:
    try:
        return one[0].as_py()
    except (ValueError, OverflowError):
        return json_column(one, dtype)[0]
