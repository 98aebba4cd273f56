"""A column's default: a JSON value, or one of a few expressions, as SQL that DuckDB keeps."""

from __future__ import annotations

import decimal
from typing import Any

from teatree.contracts.errors import Code, RequestError
from teatree.contracts.names import fold
from teatree.contracts.types.dtypes import (
    Array,
    Blob,
    Boolean,
    Date,
    Decimal,
    Dtype,
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
from teatree.datasets.arrow.arrays import build_array
from teatree.datasets.bad_value import BadValueError
from teatree.datasets.ddl import quote_literal
from teatree.datasets.results.json_values import json_column
from teatree.datasets.values import converter

_MOMENT = ("now()", (Timestamp, Date, Time, TimeTz))
_UUID = ("uuid()", (Uuid,))
_EXPRESSIONS: dict[str, tuple[str, tuple[type[Dtype], ...]]] = {
    "now()": _MOMENT,
    "current_timestamp": _MOMENT,
    "current_date": ("current_date", (Date, Timestamp)),
    "uuid()": _UUID,
    "gen_random_uuid()": _UUID,
}
_TIME_OF_DAY = "CAST(CAST(now() AS TIMESTAMP) AS TIME)"  # DuckDB casts a moment with a time zone to no TIME


def default_sql(value: Any, dtype: Dtype, where: str = "default") -> str | None:
    """Return the default `value` of a column of type `dtype` as SQL, or None for null.

    A text that names one of the few expressions (`now()`, `current_date`, `uuid()`) is that expression if the type can
    hold its values; in a VARCHAR it is that text. Raises what a row's value would raise.
    """
    if value is None:
        return None
    if (found := _expression(value, dtype)) is not None:
        return f"CAST({found} AS {dtype})"
    try:
        stored = converter(dtype)(value)
    except BadValueError as e:
        raise RequestError(e.code, e.message, where=f"{where}{e.path}") from None
    return _literal(stored, dtype, where)


def is_computed(value: Any, dtype: Dtype) -> bool:
    """Whether a default is computed for each row, where others are one value for all."""
    return _expression(value, dtype) is not None


def _expression(value: Any, dtype: Dtype) -> str | None:
    found = _EXPRESSIONS.get(fold(value.strip())) if isinstance(value, str) else None
    if found is None or not isinstance(dtype, found[1]):
        return None
    return _TIME_OF_DAY if isinstance(dtype, (Time, TimeTz)) else found[0]


def _literal(stored: Any, dtype: Dtype, where: str) -> str:
    """Return a value as constant SQL: no function, which DuckDB would compute for each row of an ALTER TABLE."""
    if stored is None:
        return "NULL"
    match dtype:
        case Boolean():
            return "true" if stored else "false"
        case Integer():
            return f"CAST('{stored}' AS {dtype})"
        case Float():
            return f"CAST('{stored!r}' AS {dtype})"
        case Decimal(scale=scale):
            return f"CAST('{decimal.Decimal(stored).scaleb(-scale, decimal.Context(prec=60)):f}' AS {dtype})"
        case Varchar():
            return quote_literal(stored)
        case Json():
            return f"CAST({quote_literal(stored)} AS JSON)"
        case Blob():
            digits = "".join(f"\\x{byte:02X}" for byte in stored)
            return f"CAST('{digits}' AS BLOB)"
        case Interval():
            months, days, nanoseconds = stored
            return f"CAST('{months} months {days} days {nanoseconds // 1000} microseconds' AS INTERVAL)"
        case List(of=of):
            return f"CAST([{', '.join(_literal(element, of, where) for element in stored)}] AS {dtype})"
        case Array() | Struct() | Map():
            raise RequestError(Code.BAD_ARGUMENT, f"A column of type {dtype} has no default.", where=where)
        case _:
            (text,) = json_column(build_array(dtype, [stored]), dtype)
            if text[0] in "+-" and not text.endswith("infinity"):  # DuckDB reads and writes such years otherwise
                raise RequestError(Code.OUT_OF_RANGE, f"The default {text} is not in the years 1 to 9999.", where=where)
            return f"CAST({quote_literal(text)} AS {dtype})"
