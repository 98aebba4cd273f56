"""The output of a converter as SQL that reproduces the value, read without Teatree's code."""

from __future__ import annotations

import base64
import re
import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import pyarrow as pa

from fuzz.kinds import INTEGERS, UNITS, SqlType, quoted

PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_YEAR = re.compile(r"([+-]?)(\d{4,})(-\d\d-\d\d)")
_DURATION = re.compile(r"P(?:(-?\d+)M)?(?:(-?\d+)D)?(?:T(-?)(\d+)(?:\.(\d{6}))?S)?")


def nested(kind: SqlType, value: Any, read: Callable[[SqlType, Any], str]) -> str:
    """Return SQL for a value of lists, objects and pairs, whose scalars `read` converts."""
    if value is None:
        return "NULL"
    match kind.base:
        case "LIST" | "ARRAY":
            return f"[{', '.join(nested(kind.parts[0], part, read) for part in value)}]::{kind.sql}"
        case "STRUCT":
            members = (
                f'"{name.replace(chr(34), chr(34) * 2)}": {nested(part, value[name], read)}'
                for name, part in zip(kind.names, kind.parts, strict=True)
            )
            return f"{{{', '.join(members)}}}::{kind.sql}"
        case "MAP":
            pairs = list(value.items()) if isinstance(value, dict) else list(value)
            keys = ", ".join(nested(kind.parts[0], key, read) for key, _ in pairs)
            items = ", ".join(nested(kind.parts[1], item, read) for _, item in pairs)
            return f"map([{keys}]::{kind.parts[0].sql}[], [{items}]::{kind.parts[1].sql}[])::{kind.sql}"
        case _:
            return read(kind, value)


def moment(text: str) -> str:
    """Return DuckDB's text of a day or a moment whose year has a sign."""
    found = _YEAR.match(text)
    if found is None:
        return text
    sign, year, rest = found.groups()
    tail = text[found.end() :]
    if sign == "-" or int(year) == 0:
        return f"{int(year) + 1:04}{rest} (BC){tail}"
    return f"{year}{rest}{tail}"


def json_sql(kind: SqlType, value: Any) -> str:
    """Return SQL for a plain JSON value; `value` has numbers as text."""
    match kind.base:
        case "BLOB":
            return f"unhex('{base64.b64decode(value).hex()}')"
        case "VARCHAR" | "ENUM":
            return f"{quoted(_text(value))}::{kind.sql}"
        case "INTERVAL":
            found = _DURATION.fullmatch(value)
            assert found is not None, value
            months, days, sign, seconds, fraction = found.groups()
            micros = int(seconds or 0) * 1_000_000 + int(fraction or 0)
            return interval(int(months or 0), int(days or 0), -micros if sign else micros)
        case "DATE" | "TIMESTAMP" | "TIMESTAMP_S" | "TIMESTAMP_MS" | "TIMESTAMP_NS" | "TIMESTAMPTZ":
            return f"'{moment(_text(value))}'::{kind.sql}"
        case "BOOLEAN":
            assert isinstance(value, bool), value
            return str(value).lower()
        case "DECIMAL":
            return f"'{Decimal(value):f}'::{kind.sql}"
        case _:
            return f"{quoted(str(value))}::{kind.sql}"


def _text(value: Any) -> str:
    assert type(value) is str, value
    return value


def interval(months: int, days: int, micros: int) -> str:
    """Return SQL for an interval."""
    return f"(to_months({months}) + to_days({days}) + to_microseconds({micros}))"


def arrow_values(kind: SqlType, array: pa.Array) -> list[str]:
    """Return SQL for each value of an Arrow array."""
    return [_arrow(kind, array[place]) for place in range(len(array))]


def _arrow(kind: SqlType, one: pa.Scalar) -> str:
    if not one.is_valid:
        return "NULL"
    match kind.base:
        case "LIST" | "ARRAY":
            inner = arrow_values(kind.parts[0], one.values)
            return f"[{', '.join(inner)}]::{kind.sql}"
        case "STRUCT":
            members = (
                f'"{name.replace(chr(34), chr(34) * 2)}": {_arrow(part, one[place])}'
                for place, (name, part) in enumerate(zip(kind.names, kind.parts, strict=True))
            )
            return f"{{{', '.join(members)}}}::{kind.sql}"
        case "MAP":
            keys = arrow_values(kind.parts[0], one.values.field(0))
            items = arrow_values(kind.parts[1], one.values.field(1))
            key, item = kind.parts
            return f"map([{', '.join(keys)}]::{key.sql}[], [{', '.join(items)}]::{item.sql}[])::{kind.sql}"
        case _:
            return _plain_arrow(kind, one)


def _plain_arrow(kind: SqlType, one: pa.Scalar) -> str:
    arrow = one.type
    if pa.types.is_timestamp(arrow):
        return count_sql(one.value, arrow.unit, kind)
    if pa.types.is_date(arrow):
        return day_sql(one.value)
    if pa.types.is_time(arrow):
        return time_sql(one.value, arrow.unit)
    if arrow == pa.month_day_nano_interval():
        months, days, nanos = one.as_py()
        assert nanos % 1000 == 0
        return interval(months, days, nanos // 1000)
    if isinstance(arrow, pa.BaseExtensionType):
        one = one.value
    value = one.as_py()
    if pa.types.is_floating(arrow):
        return float_sql(value, kind)
    if kind.base == "INTERVAL":  # a struct of Polars
        return interval(value["months"], value["days"], value["micros"])
    return python_sql(kind, value)


def float_sql(value: float, kind: SqlType) -> str:
    """Return SQL for a float, exact to the bit."""
    return f"'{value!r}'::DOUBLE::{kind.sql}"


def day_sql(days: int) -> str:
    """Return SQL for a day counted from 1970."""
    if abs(days) == 2**31 - 1:
        return f"'{'-' if days < 0 else ''}infinity'::DATE"
    return f"('1970-01-01'::DATE + ({days}))"


def time_sql(count: int, unit: str) -> str:
    """Return SQL for a time of day."""
    seconds, fraction = divmod(count, PER_SECOND[unit])
    digits = f"{fraction * (10**9 // PER_SECOND[unit]):09}"
    assert digits.endswith("000")
    return f"'{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{digits[:6]}'::TIME"


def count_sql(count: int, unit: str, kind: SqlType) -> str:
    """Return SQL for a moment counted from 1970."""
    if abs(count) == 2**63 - 1:
        return f"'{'-' if count < 0 else ''}infinity'::{kind.sql}"
    if unit == "ns":
        seconds, rest = divmod(count, 10**9)
        return f"(make_timestamp({seconds * 10**6})::VARCHAR || '.{rest:09}')::{kind.sql}"
    return f"make_timestamp({count * 10**6 // PER_SECOND[unit]})::{kind.sql}"


def python_sql(kind: SqlType, value: Any) -> str:
    """Return SQL for a plain Python value, or the text that represents one."""
    match value:
        case bool():
            return str(value).lower()
        case float():
            return float_sql(value, kind)
        case bytes() if kind.base == "UUID":
            return f"'{uuid.UUID(bytes=value)}'::UUID"
        case bytes():
            return f"unhex('{value.hex()}')"
        case datetime():
            if value.tzinfo is not None:
                value = value.astimezone(UTC).replace(tzinfo=None)
            return f"'{value.isoformat(' ')}'::{kind.sql}"
        case date() | time():
            return f"'{value.isoformat()}'::{kind.sql}"
        case uuid.UUID():
            return f"'{value}'::UUID"
        case int() | Decimal():
            assert kind.base in INTEGERS or kind.base in ("DECIMAL", "JSON"), (kind, value)
            return f"'{value:f}'::{kind.sql}" if isinstance(value, Decimal) else f"'{value}'::{kind.sql}"
        case tuple() if kind.base == "INTERVAL":
            months, days, nanos = value
            return interval(months, days, nanos // 1000)
        case str() if kind.base in UNITS or kind.base == "DATE":
            return f"'{moment(value)}'::{kind.sql}"
        case _:
            return f"{quoted(value)}::{kind.sql}"
