"""Checks of a statement's parameters: DuckDB must have exactly their values."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from teatree.contracts.errors import Code, RequestError
from teatree.contracts.shown import shown
from teatree.contracts.types.dtypes import DECIMAL_PRECISION_MAX
from teatree.datasets.python_forms import plain

PARAMETERS_MAX = 1_000
"""Parameters of one statement."""
_SCALARS = frozenset({type(None), bool, int, float, str, Decimal, bytes, date, datetime, time, timedelta, UUID})
_DEPTH_MAX = 20
"""Lists within lists of one parameter."""
_SURROGATE = re.compile("[\ud800-\udfff]")


def check_parameter(value: Any, where: str) -> None:
    """Refuse what DuckDB has no value for, or would take as something else; raises `out_of_range` and the like."""
    if isinstance(value, int) and not -(2**127) <= value < 2**128:
        raise RequestError(Code.OUT_OF_RANGE, f"{shown(value)} is out of range for any type.", where=where)
    if isinstance(value, Decimal):
        _check_decimal(value, where)
    if isinstance(value, str) and not value.isascii() and _SURROGATE.search(value):
        raise RequestError(Code.TYPE_MISMATCH, "The text holds half a surrogate pair.", where=where)


def python_parameters(parameters: object) -> list[Any] | dict[str, Any]:
    """Return the parameters of a statement that Python code runs: scalars of Python, and lists of them.

    Raises `bad_argument` for what DuckDB would take as something else, `out_of_range` and the like.
    """
    if isinstance(parameters, Mapping):
        pairs = list(parameters.items())
        if not all(isinstance(name, str) for name, _ in pairs):
            raise _no_parameters(parameters)
    elif isinstance(parameters, list | tuple):
        pairs = list(enumerate(parameters))
    else:
        raise _no_parameters(parameters)
    if len(pairs) > PARAMETERS_MAX:
        raise RequestError(Code.OUT_OF_RANGE, f"At most {PARAMETERS_MAX} parameters are taken.", where="parameters")
    values = {key: _python_parameter(value, f"parameters[{key!r}]", 0) for key, value in pairs}
    return values if isinstance(parameters, Mapping) else list(values.values())


def _no_parameters(parameters: object) -> RequestError:
    return RequestError(
        Code.BAD_ARGUMENT,
        f"Parameters are a list for `?` or a dict for `$name`, not {type(parameters).__name__}.",
        where="parameters",
    )


def _python_parameter(value: Any, where: str, depth: int) -> Any:
    if type(value) not in _SCALARS:
        value = plain(value)
    if type(value) in _SCALARS:
        check_parameter(value, where)
        return value
    if isinstance(value, list | tuple) and depth < _DEPTH_MAX:
        return [_python_parameter(element, f"{where}[{i}]", depth + 1) for i, element in enumerate(value)]
    raise RequestError(
        Code.BAD_ARGUMENT,
        f"{type(value).__name__} is no type of a parameter.",
        where=where,
        hint="Give texts, numbers, booleans, None, bytes, dates, times, UUIDs, or lists of these; rows: `tables`.",
    )


def _check_decimal(value: Decimal, where: str) -> None:
    """Refuse a number that no DECIMAL holds, and that DuckDB would therefore round to a double in silence."""
    nearest = float(value)
    if not math.isfinite(nearest):
        raise RequestError(Code.OUT_OF_RANGE, f"{shown(value)} is out of range for any type.", where=where)
    if _width(value) > DECIMAL_PRECISION_MAX and Decimal(repr(nearest)) != value:
        raise RequestError(
            Code.LOSSY_NUMBER,
            f"{shown(value)} has more than {DECIMAL_PRECISION_MAX} digits.",
            where=where,
            hint="Send it as a text, and cast that in the statement.",
        )


def _width(value: Decimal) -> int:
    """Return the precision of the DECIMAL that DuckDB makes of a number."""
    _, digits, exponent = value.as_tuple()
    whole = len(digits) + int(exponent)
    return max(len(digits), whole, 1 - int(exponent) if whole <= 0 else 0)
