"""The conversion of JSON values to a column's values: one converter per type, exact or refused.

A converter takes what `codec.parse_json` gives (str, int, Decimal, bool, None, list, dict; a Python float is taken too)
and returns what `arrays.build_array` takes: counts for days, times and moments, scaled integers for decimals, an index
for an ENUM's member, bytes for UUIDs. Numbers beyond 2^53 may come as strings, as `json_values` writes them.
"""

from __future__ import annotations

import base64
import binascii
import decimal
import math
import re
import struct
from collections.abc import Callable, Hashable
from typing import Any, NoReturn

from teatree.contracts.errors import Code
from teatree.contracts.names import fold
from teatree.contracts.shown import shown
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
    Time,
    Timestamp,
    TimeTz,
    Uuid,
    Varchar,
)
from teatree.datasets import iso
from teatree.datasets.bad_value import BadValueError, encodable, lossy, mismatch, out_of_range
from teatree.datasets.json_text import json_text

Convert = Callable[[Any], Any]
_NUMBER = re.compile(r"[+-]?[0-9]{1,200}(?:\.[0-9]{0,200})?(?:[eE][+-]?[0-9]{1,4})?")
_WHOLE = re.compile(r"-?[0-9]{1,40}")
_BITS = re.compile(r"[01]+")
_DASHES = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}|[0-9a-fA-F]{32}")
_FLOAT32 = struct.Struct("<f")
_FLOAT_WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_INT32_MAX = 2**31 - 1
_INTERVAL_MICROS_MAX = (2**63 - 1) // 1000
"""Microseconds of an interval in Arrow, which counts its nanoseconds in 64 bits: 292 years, beside months and days."""
_DIGITS_MAX = 40
"""Digits before the point beyond which no type holds a whole number; likewise zeros after it."""


def converter(dtype: Dtype, *, nullable: bool = True) -> Convert:
    """Return the function that converts one JSON value for a column, or raises `BadValueError`."""
    null = _allow_null if nullable else _refuse_null
    match dtype:
        case Boolean():
            return _boolean(null)
        case Integer():
            return _integer(dtype, null)
        case Float():
            return _float(dtype, null)
        case Decimal():
            return _decimal(dtype, null)
        case Varchar():
            return _varchar(null)
        case Enum():
            return _enum(dtype, null)
        case Json():
            return lambda value: null() if value is None else json_text(value)
        case Interval():
            return lambda value: null() if value is None else _interval(value)
        case List() | Array():
            return _list(dtype, null)
        case Struct():
            return _struct(dtype, null)
        case Map():
            return _map(dtype, null)
        case _:
            return _from_text(dtype, _text_reader(dtype), null)


def _allow_null() -> None:
    return None


def _refuse_null() -> NoReturn:
    raise BadValueError(Code.NOT_NULL, "The column does not take null.")


def _boolean(null: Callable[[], None]) -> Convert:
    def convert(value: Any) -> Any:
        if value is True or value is False:
            return value
        return null() if value is None else mismatch(value, Boolean())

    return convert


def _integer(dtype: Integer, null: Callable[[], None]) -> Convert:
    low, high = dtype.minimum, dtype.maximum

    def convert(value: Any) -> Any:
        if type(value) is int and low <= value <= high:
            return value
        return null() if value is None else other(value)

    def other(value: Any) -> int:
        if type(value) is str and dtype.bits >= 64 and _WHOLE.fullmatch(value):
            whole = int(value)
        elif type(value) is int:
            whole = value
        elif type(value) is float and value.is_integer():
            whole = int(value)  # all its digits, not those of its shortest form
        else:
            whole = scaled(number(value, dtype), 0, dtype)
        return whole if low <= whole <= high else out_of_range(value, dtype)

    return convert


def number(value: Any, dtype: Dtype) -> decimal.Decimal:
    """Return a JSON number as a finite Decimal."""
    if type(value) is float and math.isfinite(value):
        return decimal.Decimal(repr(value))
    if type(value) is decimal.Decimal and value.is_finite():
        return value
    return mismatch(value, dtype)


def scaled(value: decimal.Decimal, scale: int, dtype: Dtype) -> int:
    """Return value * 10**scale if that is a whole number that fits anywhere."""
    size = value.adjusted()
    if not -_DIGITS_MAX <= size <= _DIGITS_MAX and value:  # huge powers of ten are not computed
        if size > 0:
            out_of_range(value, dtype)
        lossy(value, dtype)
    whole: int
    numerator, denominator = value.as_integer_ratio() if value else (0, 1)
    whole, rest = divmod(numerator * 10**scale, denominator)
    return lossy(value, dtype) if rest else whole


def _float(dtype: Float, null: Callable[[], None]) -> Convert:
    def convert(value: Any) -> Any:
        if type(value) is decimal.Decimal:
            nearest = float(value)
            return fit(nearest) if math.isfinite(nearest) else out_of_range(value, dtype)
        if type(value) is int:
            try:
                nearest = fit(float(value))
            except OverflowError:
                out_of_range(value, dtype)
            return nearest if nearest == value else lossy(value, dtype)
        if type(value) is float:
            return fit(value)
        if type(value) is str and value in _FLOAT_WORDS:
            return _FLOAT_WORDS[value]
        return null() if value is None else mismatch(value, dtype)

    def narrow(value: float) -> float:
        try:
            return float(_FLOAT32.unpack(_FLOAT32.pack(value))[0])
        except OverflowError:
            out_of_range(value, dtype)

    fit: Callable[[float], float] = narrow if dtype.bits == 32 else float
    return convert


def _decimal(dtype: Decimal, null: Callable[[], None]) -> Convert:
    scale = dtype.scale
    limit = 10**dtype.precision
    unit = 10**scale

    def convert(value: Any) -> Any:
        if type(value) is int:
            exact = value * unit
        elif value is None:
            return null()
        elif type(value) is str:
            if not _NUMBER.fullmatch(value):
                mismatch(value, dtype)
            exact = scaled(decimal.Decimal(value), scale, dtype)
        else:
            exact = scaled(number(value, dtype), scale, dtype)
        return exact if -limit < exact < limit else out_of_range(value, dtype)

    return convert


def _varchar(null: Callable[[], None]) -> Convert:
    def convert(value: Any) -> Any:
        if type(value) is str:
            return value if value.isascii() else encodable(value)
        return null() if value is None else mismatch(value, Varchar())

    return convert


def _enum(dtype: Enum, null: Callable[[], None]) -> Convert:
    places = {member: place for place, member in enumerate(dtype.values)}

    def convert(value: Any) -> Any:
        place = places.get(value) if type(value) is str else None
        if place is not None:
            return place
        return null() if value is None else mismatch(value, dtype)

    return convert


def _from_text(dtype: Dtype, read: Callable[[str], Any], null: Callable[[], None]) -> Convert:
    def convert(value: Any) -> Any:
        if type(value) is str:
            try:
                return read(value)
            except OverflowError as e:
                raise BadValueError(Code.OUT_OF_RANGE, f"{shown(value)} {e} ({dtype}).") from None
            except ValueError as e:
                mismatch(value, dtype, str(e))
        return null() if value is None else mismatch(value, dtype)

    return convert


def _text_reader(dtype: Dtype) -> Callable[[str], Any]:
    match dtype:
        case Date():
            return iso.parse_date
        case Time(unit=unit):
            return lambda text: iso.parse_time(text, unit)
        case TimeTz():
            return _time_tz
        case Timestamp(unit=unit, tz=tz):
            return lambda text: iso.parse_timestamp(text, unit, tz=tz)
        case Uuid():
            return _uuid
        case Blob():
            return _blob
        case Bit():
            return _bit
        case _:
            raise TypeError(f"{dtype} has no text form")


def _time_tz(text: str) -> bytes:
    micros, offset = iso.parse_time_tz(text)
    return (micros << 24 | (iso.OFFSET_SECONDS_MAX - offset)).to_bytes(8, "little")


def _uuid(text: str) -> bytes:
    if not _DASHES.fullmatch(text):
        raise ValueError("is not a UUID as in 01234567-89ab-cdef-0123-456789abcdef")
    return bytes.fromhex(text.replace("-", ""))


def _blob(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("is not Base64") from None


def _bit(text: str) -> bytes:
    if not _BITS.fullmatch(text):
        raise ValueError("is not a text of 0 and 1")
    padding = -len(text) % 8
    return bytes((padding,)) + int("1" * padding + text, 2).to_bytes((len(text) + 7) // 8, "big")


def _interval(value: Any) -> tuple[int, int, int]:
    if type(value) is str:
        try:
            months, days, micros = iso.parse_duration(value)
        except ValueError as e:
            mismatch(value, Interval(), str(e))
    elif type(value) is dict and value and value.keys() <= {"months", "days", "micros"}:
        if any(type(part) is not int for part in value.values()):
            mismatch(value, Interval(), "has a part that is not a whole number")
        months, days, micros = value.get("months", 0), value.get("days", 0), value.get("micros", 0)
    else:
        mismatch(value, Interval(), "is neither a duration as in P1DT2H nor {months, days, micros}")
    if max(abs(months), abs(days)) > _INT32_MAX or abs(micros) > _INTERVAL_MICROS_MAX:
        out_of_range(value, Interval())
    return months, days, micros * 1000


def _list(dtype: List | Array, null: Callable[[], None]) -> Convert:
    of = converter(dtype.of)
    length = dtype.length if isinstance(dtype, Array) else None

    def convert(value: Any) -> Any:
        if type(value) is not list:
            return null() if value is None else mismatch(value, dtype)
        if length is not None and len(value) != length:
            mismatch(value, dtype, f"has {len(value)} elements, not {length}")
        return [_nested(of, element, f"[{i}]") for i, element in enumerate(value)]

    return convert


def _nested(convert: Convert, value: Any, step: str) -> Any:
    try:
        return convert(value)
    except BadValueError as e:
        e.path = step + e.path
        raise


def _struct(dtype: Struct, null: Callable[[], None]) -> Convert:
    members = [(member.name, converter(member.dtype)) for member in dtype.fields]
    spelling = {fold(name): name for name, _ in members}
    names = frozenset(spelling.values())

    def convert(value: Any) -> Any:
        if type(value) is not dict:
            return null() if value is None else mismatch(value, dtype)
        if not value.keys() <= names:
            value = respell(value)
        return tuple(_nested(of, value.get(name), f".{name}") for name, of in members)

    def respell(value: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, member in value.items():
            name = spelling.get(fold(key))
            if name is None:
                message = f"There is no member {key!r} in {str(dtype)[:60]}."
                raise BadValueError(Code.UNKNOWN_COLUMN, message, f".{key}")
            if name in found:
                raise BadValueError(Code.DUPLICATE_KEY, f"The member {name!r} is named twice.", f".{key}")
            found[name] = member
        return found

    return convert


def _map(dtype: Map, null: Callable[[], None]) -> Convert:
    key_of, value_of = converter(dtype.key), converter(dtype.value)

    def convert(value: Any) -> Any:
        if type(value) is dict:
            pairs = list(value.items())
        elif type(value) is list and all(type(pair) is list and len(pair) == 2 for pair in value):
            pairs = value
        else:
            return null() if value is None else mismatch(value, dtype)
        seen: set[Hashable] = set()
        entries = []
        for place, (raw_key, raw_value) in enumerate(pairs):
            step = f"[{place}]" if type(value) is list else f".{raw_key}"
            key = _nested(key_of, raw_key, step)
            if key is None:
                raise BadValueError(Code.NOT_NULL, "A key of a MAP is not null.", step)
            if (known := _hashable(key)) in seen:
                raise BadValueError(Code.DUPLICATE_KEY, f"The key {shown(raw_key)} occurs twice in a MAP.", step)
            seen.add(known)
            entries.append((key, _nested(value_of, raw_value, step)))
        return entries

    return convert


def _hashable(key: Any) -> Hashable:
    if isinstance(key, list | tuple):
        return tuple(map(_hashable, key))
    return "NaN" if key != key else key  # noqa: PLR0124 - a NaN is the one value that differs from itself
