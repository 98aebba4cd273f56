"""The JSON text of a value, as a JSON column keeps it: every number with all its digits."""

from __future__ import annotations

import decimal
from typing import Any

import orjson

from teatree.contracts.errors import Code
from teatree.contracts.types.dtypes import Json
from teatree.datasets.bad_value import BadValueError, encodable, mismatch

_JSON_DEPTH_MAX = 250


def json_text(value: Any) -> str:
    """Return a parsed JSON value as JSON text again, every number with all its digits."""
    try:
        return orjson.dumps(value, default=_number_text).decode()
    except TypeError:  # an integer beyond 64 bits, or what is no JSON: the slow way distinguishes them
        return _slow_json_text(value, 0)


def _number_text(value: Any) -> orjson.Fragment:
    if type(value) is decimal.Decimal and value.is_finite():
        return orjson.Fragment(str(value))
    raise TypeError


def _slow_json_text(value: Any, depth: int) -> str:
    if depth > _JSON_DEPTH_MAX:
        raise BadValueError(Code.TYPE_MISMATCH, f"The value is nested more than {_JSON_DEPTH_MAX} levels deep.")
    if type(value) is dict:
        members = (f"{_slow_json_text(k, depth + 1)}:{_slow_json_text(v, depth + 1)}" for k, v in value.items())
        return "{" + ",".join(members) + "}"
    if type(value) is list:
        return "[" + ",".join(_slow_json_text(element, depth + 1) for element in value) + "]"
    if type(value) is int or (type(value) is decimal.Decimal and value.is_finite()):
        return str(value)
    if type(value) is str:
        return orjson.dumps(encodable(value)).decode()
    if value is None or type(value) in (bool, float):
        return orjson.dumps(value).decode()
    return mismatch(value, Json())
