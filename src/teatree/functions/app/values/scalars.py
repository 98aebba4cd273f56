"""Scalars: how each is read from a JSON value (or a Python value of its type), strictly, and what JSON it takes."""

from __future__ import annotations

import base64
import binascii
import decimal
import math
import re
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from enum import Enum, auto
from typing import Any, NoReturn
from uuid import UUID

from attrs import frozen

from teatree.contracts.errors import Code
from teatree.contracts.shown import shown
from teatree.datasets import iso
from teatree.datasets.bad_value import BadValueError, encodable

DIGITS_MAX = 400
"""Digits of a decimal number, its zeros among them: arithmetic on it stays quick."""
_NUMBER = re.compile(r"[+-]?[0-9]{1,400}(?:\.[0-9]{0,400})?(?:[eE][+-]?[0-9]{1,4})?")
_WIDE = re.compile(r"-?[1-9][0-9]{18,399}")
_INT64 = range(-(2**63), 2**64)
"""Whole numbers that JSON has as numbers; `dump_json` writes others as texts."""
_FLOAT_WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_CLOCK = r"([0-9]{2}:[0-9]{2}(?::[0-9]{2})?)(?:[.,]([0-9]{1,12}))?(Z|z|[+-][0-9]{2}(?::?[0-9]{2}(?::?[0-9]{2})?)?)?"
_TIME = re.compile(_CLOCK)
_MOMENT = re.compile(rf"({_DATE.pattern})[T ]{_CLOCK}")
_UUID = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}")


class JsonKind(Enum):
    """The kinds of JSON values, by which members of a union are distinguished."""

    NULL = auto()
    BOOLEAN = auto()
    INTEGER = auto()
    FRACTION = auto()
    TEXT = auto()
    LIST = auto()
    OBJECT = auto()


class TextForm(Enum):
    """What texts a scalar takes. Different forms exclude each other, but for `ANY` and `BASE64`."""

    ANY = auto()
    BASE64 = auto()
    NUMBER = auto()
    DATE = auto()
    MOMENT = auto()
    TIME = auto()
    DURATION = auto()
    UUID = auto()


@frozen
class Scalar:
    """How one scalar type is read, and what it is in JSON."""

    read: Callable[[Any], Any]
    noun: str
    kinds: frozenset[JsonKind]
    schema: Mapping[str, Any]
    form: TextForm | None = None
    """The texts that it takes, if any; words for numbers aside."""


def refuse(value: Any, noun: str, why: str | None = None) -> NoReturn:
    """Refuse a value that is not what `noun` names."""
    raise BadValueError(Code.TYPE_MISMATCH, f"{shown(value)} {why or 'is not'} {noun}.")


def _lossy(value: Any, noun: str) -> NoReturn:
    raise BadValueError(Code.LOSSY_NUMBER, f"{shown(value)} would lose digits as {noun}.")


def _out_of_range(value: Any, noun: str) -> NoReturn:
    raise BadValueError(Code.OUT_OF_RANGE, f"{_short(value)} is out of range for {noun}.")


def _short(value: Any) -> str:
    """Return a number as text; a long one is not written out first."""
    is_long = isinstance(value, int) and value.bit_length() > 4 * DIGITS_MAX
    return f"A number of {value.bit_length()} bits" if is_long else shown(value)


def _text(value: Any) -> str:
    if type(value) is not str:
        if not isinstance(value, str):
            refuse(value, "a text")
        value = str.__str__(value)
    return value if value.isascii() else encodable(value)


def _boolean(value: Any) -> bool:
    return value if value is True or value is False else refuse(value, "true or false")


def _integer(value: Any) -> int:
    if type(value) is int:
        return value
    noun = "a whole number"
    if isinstance(value, decimal.Decimal) and value.is_finite():
        _check_size(value, noun)
        return int(value) if value == value.to_integral_value() else _lossy(value, noun)
    if isinstance(value, float) and math.isfinite(value):
        return int(value) if value.is_integer() else _lossy(value, noun)
    if type(value) is str and _WIDE.fullmatch(value) and int(value) not in _INT64:
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value)
    refuse(value, noun)


def _float(value: Any) -> float:
    noun = "a number"
    if isinstance(value, float):
        return float(value)
    if isinstance(value, decimal.Decimal) and value.is_finite():
        nearest = float(value)
        return nearest if math.isfinite(nearest) else _out_of_range(value, noun)
    if isinstance(value, int) and not isinstance(value, bool):
        try:
            nearest = float(value)
        except OverflowError:
            _out_of_range(value, noun)
        return nearest if nearest == value else _lossy(value, noun)
    if type(value) is str and value in _FLOAT_WORDS:
        return _FLOAT_WORDS[value]
    refuse(value, noun)


def _decimal(value: Any) -> decimal.Decimal:
    noun = "a decimal number"
    if isinstance(value, decimal.Decimal):
        found = value
    elif isinstance(value, int) and not isinstance(value, bool):
        found = decimal.Decimal(value)
    elif isinstance(value, float):
        found = decimal.Decimal(repr(float(value)))
    elif isinstance(value, str) and _NUMBER.fullmatch(value):
        found = decimal.Decimal(str.__str__(value))
    else:
        refuse(value, noun)
    if not found.is_finite():
        refuse(value, noun)
    _check_size(found, noun)
    return found


def _check_size(value: decimal.Decimal, noun: str) -> None:
    """Refuse a number whose digits would not fit into memory: 1e999999999 is a short text."""
    exponent = int(value.as_tuple().exponent)
    if not -DIGITS_MAX <= exponent <= DIGITS_MAX or value.adjusted() >= DIGITS_MAX:
        _out_of_range(value, noun)


def _from_text(noun: str, kind: type, parse: Callable[[str], Any]) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if isinstance(value, str):
            try:
                return parse(str.__str__(value))
            except (ValueError, OverflowError) as e:
                why = str(e) if type(e) is _FormError else "is not"
                refuse(value, noun, why)
        if isinstance(value, kind) and not (kind is date and isinstance(value, datetime)):
            return value
        refuse(value, noun)

    return read


class _FormError(ValueError):
    """A text is nearly of the form; the message stands between the value and the noun."""


def _parse_date(text: str) -> date:
    if not _DATE.fullmatch(text):
        raise ValueError
    return date.fromisoformat(text)


def _parse_time(text: str) -> time:
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError
    return time.fromisoformat(_clock_text(match[1], match[2], match[3]))


def _parse_moment(text: str) -> datetime:
    match = _MOMENT.fullmatch(text)
    if match is None:
        raise ValueError
    return datetime.fromisoformat(f"{match[1]}T{_clock_text(match[2], match[3], match[4])}")


def _clock_text(clock: str, fraction: str | None, offset: str | None) -> str:
    if not fraction:
        return clock + (offset or "")
    if fraction[6:].strip("0"):
        raise _FormError("has more than 6 digits after the seconds, so it is not")
    return f"{clock if len(clock) > 5 else f'{clock}:00'}.{fraction[:6].ljust(6, '0')}{offset or ''}"


def _parse_duration(text: str) -> timedelta:
    months, days, micros = iso.parse_duration(text)
    if months:
        raise _FormError("has months or years, whose length is not fixed, so it is not")
    return timedelta(days=days, microseconds=micros)


def _parse_uuid(text: str) -> UUID:
    if not _UUID.fullmatch(text):
        raise ValueError
    return UUID(text)


def _bytes(value: Any) -> bytes:
    if isinstance(value, str):
        try:
            return base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            refuse(value, "Base64")
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    refuse(value, "Base64")


_WHOLE = frozenset({JsonKind.INTEGER})
_NUMERIC = frozenset({JsonKind.INTEGER, JsonKind.FRACTION})
_TEXT = frozenset({JsonKind.TEXT})


def _text_scalar(kind: type, form: TextForm, noun: str, parse: Callable[[str], Any], json_format: str) -> Scalar:
    return Scalar(_from_text(noun, kind, parse), noun, _TEXT, {"type": "string", "format": json_format}, form)


SCALARS: Mapping[type, Scalar] = {
    str: Scalar(_text, "a text", _TEXT, {"type": "string"}, TextForm.ANY),
    bool: Scalar(_boolean, "true or false", frozenset({JsonKind.BOOLEAN}), {"type": "boolean"}),
    int: Scalar(_integer, "a whole number", _WHOLE, {"type": "integer"}),
    float: Scalar(_float, "a number", _NUMERIC, {"type": "number"}),
    decimal.Decimal: Scalar(
        _decimal,
        "a decimal number",
        _NUMERIC | _TEXT,
        {"type": ["number", "string"], "format": "decimal", "pattern": f"^{_NUMBER.pattern}$"},
        TextForm.NUMBER,
    ),
    date: _text_scalar(date, TextForm.DATE, "a date as in 2026-12-31", _parse_date, "date"),
    datetime: _text_scalar(
        datetime, TextForm.MOMENT, "a moment as in 2026-12-31T23:59:59Z", _parse_moment, "date-time"
    ),
    time: _text_scalar(time, TextForm.TIME, "a time of day as in 23:59:59", _parse_time, "time"),
    timedelta: _text_scalar(timedelta, TextForm.DURATION, "a duration as in P1DT2H", _parse_duration, "duration"),
    UUID: _text_scalar(UUID, TextForm.UUID, "a UUID as in 01234567-89ab-cdef-0123-456789abcdef", _parse_uuid, "uuid"),
    bytes: Scalar(_bytes, "Base64", _TEXT, {"type": "string", "contentEncoding": "base64"}, TextForm.BASE64),
}
"""The scalars by their Python type."""
