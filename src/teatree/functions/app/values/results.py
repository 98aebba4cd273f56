"""What a function returns, as plain JSON values: exact, or refused with the path of what cannot be sent."""

from __future__ import annotations

import base64
import dataclasses
import math
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, NoReturn
from uuid import UUID

import attrs

from teatree.contracts.errors import Code, OperatorError, RequestError
from teatree.contracts.formats.codec import dump_json
from teatree.datasets import iso
from teatree.datasets.bad_value import BadValueError, encodable
from teatree.datasets.dataset import Dataset
from teatree.functions.app.values.scalars import DIGITS_MAX

DEPTH_MAX = 100
"""Levels of lists and objects within each other."""
_INTEGER_BITS_MAX = int(DIGITS_MAX * math.log2(10))
_PLAIN_DIGITS_MAX = 40
"""Digits up to which a decimal number is written without an exponent."""


def result_json(value: Any, where: str = "result") -> Any:
    """Return a function's result as plain JSON values; raises `bad_result`, `where` being the path.

    Decimal numbers, dates, times and bytes are texts, as `StrictConverter` reads them; enums are their values, attrs
    classes and dataclasses objects of what their constructors take, a Dataset its rows, a set a sorted list.
    """
    try:
        return _plain(value, where, 0)
    except RecursionError:
        raise _bad("It is nested too deeply", where) from None


def _bad(message: str, where: str) -> OperatorError:
    return OperatorError(Code.BAD_RESULT, f"The result cannot be sent: {message}.", where=where)


def _plain(value: Any, where: str, depth: int) -> Any:
    kind = type(value)
    if value is None or kind is bool:
        return value
    if kind is int:
        return value if value.bit_length() <= _INTEGER_BITS_MAX else _refuse_long(where)
    if kind is str:
        return value if value.isascii() else _text(value, where)
    if kind is float:
        return value if math.isfinite(value) else _float_word(value)
    if depth > DEPTH_MAX:
        raise _bad(f"It is nested more than {DEPTH_MAX} levels deep", where)
    if kind is list or kind is tuple:
        return [_plain(each, f"{where}[{place}]", depth + 1) for place, each in enumerate(value)]
    if kind is dict:
        return _map(value, where, depth)
    return _other(value, where, depth)


def _other(value: Any, where: str, depth: int) -> Any:
    if isinstance(value, Enum):
        return _plain(value.value, where, depth + 1)
    if isinstance(value, str):
        return _text(str.__str__(value), where)
    for kinds, write in _WRITERS:
        if isinstance(value, kinds):
            return write(value)
    if isinstance(value, type):
        raise _bad(f"{value.__name__} is a class", where)
    if isinstance(value, Dataset) or hasattr(value, "__arrow_c_stream__"):
        return _rows(value, where)
    if attrs.has(type(value)) or dataclasses.is_dataclass(value):
        return _members(value, where, depth)
    if isinstance(value, Mapping):
        return _map(value, where, depth)
    if isinstance(value, list | tuple):
        return [_plain(each, f"{where}[{place}]", depth + 1) for place, each in enumerate(value)]
    if isinstance(value, AbstractSet):
        return sorted((_plain(each, f"{where}[]", depth + 1) for each in value), key=dump_json)
    if hasattr(value, "__array__") and hasattr(value, "tolist"):  # NumPy's scalars and arrays
        return _plain(value.tolist(), where, depth + 1)
    raise _bad(f"{type(value).__name__} has no JSON form", where)


def _refuse_long(where: str) -> NoReturn:
    raise _bad(f"A whole number has more than {DIGITS_MAX} digits", where)


def _text(value: str, where: str) -> str:
    try:
        return encodable(value)
    except BadValueError as e:
        raise _bad(e.message.rstrip("."), where) from None


def _float_word(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _float(value: float) -> float | str:
    plain = float(value)
    return plain if math.isfinite(plain) else _float_word(plain)


def _decimal(value: Decimal) -> str:
    is_short = value.is_finite() and -_PLAIN_DIGITS_MAX <= int(value.as_tuple().exponent) <= _PLAIN_DIGITS_MAX
    return format(value, "f") if is_short else str(value)


def _moment(value: datetime) -> str:
    text = value.isoformat()
    return f"{text.removesuffix('+00:00')}Z" if text.endswith("+00:00") else text


def _duration(value: timedelta) -> str:
    micros = value.seconds * 1_000_000 + value.microseconds
    return iso.format_duration(0, value.days, micros)


_WRITERS: tuple[tuple[type | tuple[type, ...], Callable[[Any], Any]], ...] = (
    (bool, bool),
    (int, int),
    (float, _float),
    (Decimal, _decimal),
    (datetime, _moment),
    ((date, time), lambda value: value.isoformat()),
    (timedelta, _duration),
    (UUID, str),
    ((bytes, bytearray, memoryview), lambda value: base64.b64encode(value).decode("ascii")),
)
"""In this order: a moment is a date, too."""
_KEYS = (str, int, Decimal, date, time, timedelta, UUID, bytes)


def _rows(value: Any, where: str) -> list[dict[str, Any]]:
    try:
        rows = value if isinstance(value, Dataset) else Dataset.from_arrow(value)
        return rows.to_json_rows()
    except RequestError as e:
        raise _bad(e.message.rstrip("."), where) from e


def _members(value: Any, where: str, depth: int) -> dict[str, Any]:
    if attrs.has(type(value)):
        names = [(field.alias or field.name, field.name) for field in attrs.fields(type(value)) if field.init]
    else:
        names = [(field.name, field.name) for field in dataclasses.fields(value) if field.init]
    return {name: _plain(getattr(value, attribute), f"{where}.{name}", depth + 1) for name, attribute in names}


def _map(value: Mapping[Any, Any], where: str, depth: int) -> dict[str, Any] | list[list[Any]]:
    """Return an object where each key has a text, else a list of pairs."""
    if all(type(key) is str for key in value):
        keys = list(value)
    elif all(_has_text(key) for key in value):
        keys = [str(_plain(key, where, depth + 1)) for key in value]
        if len(set(keys)) != len(keys):
            raise _bad("Two keys have the same text", where)
    else:
        return [
            [_plain(key, f"{where}[{place}][0]", depth + 1), _plain(each, f"{where}[{place}][1]", depth + 1)]
            for place, (key, each) in enumerate(value.items())
        ]
    return {
        _text(key, where): _plain(each, f"{where}.{key}", depth + 1)
        for key, each in zip(keys, value.values(), strict=True)
    }


def _has_text(key: Any) -> bool:
    if isinstance(key, Enum):
        key = key.value
    return isinstance(key, _KEYS) and not isinstance(key, bool)
