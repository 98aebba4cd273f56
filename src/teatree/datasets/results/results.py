"""Results as DuckDB exports them: their columns' types, and Arrow data that every reader supports.

DuckDB's own Arrow forms of some types are known to few readers: booleans of a byte, HUGEINT, BIT and TIMETZ as opaque
bytes. And its INTERVAL is silently wrong beyond 292 years, since Arrow counts nanoseconds. Here all of them
become forms that every reader knows, or an error (docs/decisions/0022).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from teatree.contracts.errors import Code, RequestError
from teatree.contracts.types.dtypes import (
    Array,
    Bit,
    Boolean,
    Decimal,
    Dtype,
    Enum,
    Integer,
    Interval,
    List,
    Map,
    Struct,
    StructField,
    TimeTz,
    Varchar,
    children,
)
from teatree.contracts.types.schema import Field, Schema, parse_read_dtype
from teatree.datasets.arrow.nested import one_chunk, rebuild
from teatree.datasets.arrow.types import TYPE_KEY
from teatree.datasets.arrow.wide_integers import to_decimals
from teatree.datasets.ddl import quote
from teatree.datasets.results.json_values import json_column

if TYPE_CHECKING:
    import duckdb

_INTERVAL = re.compile(
    r"(?:(-?[0-9]+) years? ?)?(?:(-?[0-9]+) months? ?)?(?:(-?[0-9]+) days? ?)?"
    r"(?:(-?)([0-9]+):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,6}))?)?"
)
_MICROS_MAX = (2**63 - 1) // 1000
"""Microseconds of an interval in Arrow: 292 years, beside its months and days."""


def result_schema(relation: duckdb.DuckDBPyRelation) -> Schema:
    """Return the columns of a DuckDB result; raises `type_mismatch` for a type that no result column can have."""
    try:
        return Schema(
            tuple(
                Field(name, _dtype(kind, f"columns[{i}]"))
                for i, (name, kind) in enumerate(zip(relation.columns, relation.types, strict=True))
            )
        )
    except RequestError as e:  # its place is one in a schema, which was not sent
        raise RequestError(e.code, f"The result cannot be returned: {e.message}", where="sql", hint=e.hint) from e


def _dtype(kind: Any, where: str) -> Dtype:
    match kind.id:
        case "null":
            return Integer()  # what DuckDB makes of a NULL without a type, when it has to choose
        case "list":
            return List(_dtype(kind.children[0][1], where))
        case "array":
            (_, of), (_, length) = kind.children
            return Array(_dtype(of, where), length)
        case "struct":
            return Struct(tuple(StructField(name, _dtype(part, where)) for name, part in kind.children))
        case "map":
            (_, key), (_, value) = kind.children
            return Map(_dtype(key, where), _dtype(value, where))
        case "enum":
            return Enum(tuple(kind.children[0][1]))
        case "decimal":
            (_, precision), (_, scale) = kind.children
            return Decimal(precision, scale)
        case _:
            return _plain_dtype(str(kind), where)


def _plain_dtype(text: str, where: str) -> Dtype:
    try:
        return parse_read_dtype(text, where)
    except RequestError:
        message = f"a column has the type {text[:80]}, which no result can have."
        raise RequestError(Code.TYPE_MISMATCH, message, where=where, hint="Cast it, for example to VARCHAR.") from None


def exportable(relation: duckdb.DuckDBPyRelation, schema: Schema) -> duckdb.DuckDBPyRelation:
    """Return the result as DuckDB can hand it out without loss: intervals as its own text of them."""
    if not any(_holds(column.dtype, Interval) for column in schema):
        return relation
    parts = [
        f"CAST(#{place} AS {_as_text(column.dtype)}) AS {quote(column.name)}"
        if _holds(column.dtype, Interval)
        else f"#{place} AS {quote(column.name)}"
        for place, column in enumerate(schema, 1)
    ]
    return relation.project(", ".join(parts))


def _as_text(dtype: Dtype) -> Dtype:
    match dtype:
        case Interval():
            return Varchar()
        case List(of=of):
            return List(_as_text(of))
        case Array(of=of, length=length):
            return Array(_as_text(of), length)
        case Struct(fields=fields):
            return Struct(tuple(StructField(member.name, _as_text(member.dtype)) for member in fields))
        case Map(key=key, value=value):
            return Map(_as_text(key), _as_text(value))
        case _:
            return dtype


def plain_table(table: pa.Table, schema: Schema) -> pa.Table:
    """Return an exported result in forms that every Arrow reader knows; raises `out_of_range` for too long intervals.

    The field of a column whose Arrow type is less specific has the column's type in its metadata.
    """
    for place, column in enumerate(schema):
        if _holds(column.dtype, Boolean, Bit, TimeTz, Interval) or _is_wide(column.dtype):
            array = rebuild(one_chunk(table.column(place)), column.dtype, _plain_array)
            is_named = _holds(column.dtype, Bit, TimeTz) or _is_wide(column.dtype)
            metadata = {TYPE_KEY: str(column.dtype).encode()} if is_named else None
            table = table.set_column(place, pa.field(column.name, array.type, metadata=metadata), array)
    return table


def _plain_array(array: pa.Array, dtype: Dtype) -> pa.Array:
    match dtype:
        case Boolean() if array.type == pa.bool8():
            return array.storage.cast(pa.bool_())
        case Integer(bits=128, signed=signed):
            return to_decimals(array.storage, signed=signed)
        case Bit() | TimeTz():
            return pa.array(json_column(array, dtype), pa.string())
        case Interval():
            return _intervals(array)
        case _:
            return array


def _intervals(texts: pa.Array) -> pa.Array:
    return pa.array(
        [None if text is None else _months_days_nanos(text) for text in texts.to_pylist()],
        pa.month_day_nano_interval(),
    )


def _months_days_nanos(text: str) -> tuple[int, int, int]:
    match = _INTERVAL.fullmatch(text)
    if match is None:
        raise RequestError(Code.TYPE_MISMATCH, f"DuckDB wrote an interval as {text[:60]!r}.", where="sql")
    years, months, days, sign, hours, minutes, seconds, fraction = match.groups()
    whole = int(hours or 0) * 3600 + int(minutes or 0) * 60 + int(seconds or 0)
    micros = whole * 1_000_000 + int((fraction or "").ljust(6, "0"))
    if micros > _MICROS_MAX:
        raise RequestError(
            Code.OUT_OF_RANGE,
            f"The result has the interval {text}; a result holds up to 292 years of hours, beside months and days.",
            where="sql",
            hint="Cast it to VARCHAR.",
        )
    return int(years or 0) * 12 + int(months or 0), int(days or 0), (-micros if sign else micros) * 1000


def _is_wide(dtype: Dtype) -> bool:
    return _any_part(dtype, lambda part: isinstance(part, Integer) and part.bits == 128)


def _holds(dtype: Dtype, *kinds: type[Dtype]) -> bool:
    return _any_part(dtype, lambda part: isinstance(part, kinds))


def _any_part(dtype: Dtype, test: Callable[[Dtype], bool]) -> bool:
    return test(dtype) or any(_any_part(part, test) for part in children(dtype))
