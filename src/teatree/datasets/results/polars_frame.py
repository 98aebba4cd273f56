"""Rows as a Polars frame: each value exactly, or an error for what Polars has no value for."""

from __future__ import annotations

from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.compute as pc

from teatree.contracts.errors import Code, RequestError
from teatree.contracts.extras import extra_for
from teatree.contracts.types.dtypes import Date, Dtype, Integer, Interval, Json, Time, Timestamp, Uuid
from teatree.contracts.types.schema import Schema
from teatree.datasets.arrow.nested import one_chunk, rebuild, storage
from teatree.datasets.iso import DAY_SECONDS, PER_SECOND
from teatree.datasets.results.json_values import json_column
from teatree.datasets.results.python_values import python_column, uuid_texts

with extra_for("A Polars frame", "polars"):
    import polars as pl

_DAYS_MIN, _DAYS_MAX = -96_465_292, 95_026_236
"""Days since 1970 of the calendar that Polars reckons with: the years -262143 to 262142."""


def to_frame(table: pa.Table, schema: Schema) -> pl.DataFrame:
    """Return rows as a frame; raises `out_of_range`, naming the column, for what Polars cannot hold."""
    return pl.DataFrame(
        [_series(_array(table, place), column.name, column.dtype) for place, column in enumerate(schema)]
    )


def _array(table: pa.Table, place: int) -> pa.Array:
    return one_chunk(table.column(place)) if table.num_rows else pa.nulls(0, table.schema.field(place).type)


def _series(array: pa.Array, name: str, dtype: Dtype) -> pl.Series:
    if isinstance(dtype, Integer) and dtype.bits == 128:
        return pl.Series(name, python_column(array, dtype), pl.Int128 if dtype.signed else pl.UInt128)

    def convert(array: pa.Array, dtype: Dtype) -> pa.Array:
        return _convert(array, dtype, name)

    return pl.Series(name, rebuild(array, dtype, convert))


def _convert(array: pa.Array, dtype: Dtype, name: str) -> pa.Array:
    match dtype:
        case Integer(bits=128) if pa.types.is_decimal256(array.type):
            _refuse(name, "a number of 39 digits within a nested value")
        case Interval():
            return _intervals(array)
        case Json():
            return storage(array)
        case Uuid():
            return uuid_texts(array)
        case Time(unit=unit):
            _check(array, dtype, 0, DAY_SECONDS * PER_SECOND[unit] - 1, name)
        case Date():
            _check(array, dtype, _DAYS_MIN, _DAYS_MAX, name)
        case Timestamp() if array.type.unit != "ns":
            day = DAY_SECONDS * PER_SECOND[array.type.unit]
            _check(array, dtype, _DAYS_MIN * day, _DAYS_MAX * day, name)
        case Timestamp():
            _check(array, dtype, 2 - 2**63, 2**63 - 2, name)
        case _:
            pass
    return array


def _check(array: pa.Array, dtype: Dtype, low: int, high: int, name: str) -> None:
    counts = array.view(pa.int32() if array.type.bit_width == 32 else pa.int64())
    bad = pc.index(pc.or_(pc.less(counts, low), pc.greater(counts, high)), value=True).as_py()
    if bad >= 0:
        _refuse(name, json_column(array.slice(bad, 1), dtype)[0])


def _refuse(name: str, what: Any) -> NoReturn:
    raise RequestError(
        Code.OUT_OF_RANGE,
        f"Polars has no value for {what}.",
        where=name,
        hint="Cast the column to VARCHAR, or take the rows as `to_arrow()` or `rows()`.",
    )


def _intervals(array: pa.Array) -> pa.Array:
    values = array.to_pylist()
    months = pa.array([None if value is None else value[0] for value in values], pa.int32())
    days = pa.array([None if value is None else value[1] for value in values], pa.int32())
    micros = pa.array([None if value is None else value[2] // 1000 for value in values], pa.int64())
    return pa.StructArray.from_arrays([months, days, micros], ["months", "days", "micros"], mask=array.is_null())
