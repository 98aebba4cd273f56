"""Checks of a statement's parameters: DuckDB must have exactly their values."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import Any

from teatree.contracts.errors import Code, RequestError
from teatree.contracts.shown import shown
from teatree.contracts.types.dtypes import DECIMAL_PRECISION_MAX

_SURROGATE = re.compile("[\ud800-\udfff]")


def check_parameter(value: Any, where: str) -> None:
    """Refuse what DuckDB has no value for, or would take as something else; raises `out_of_range` and the like."""
    if isinstance(value, int) and not -(2**127) <= value < 2**128:
        raise RequestError(Code.OUT_OF_RANGE, f"{shown(value)} is out of range for any type.", where=where)
    if isinstance(value, Decimal):
        _check_decimal(value, where)
    if isinstance(value, str) and not value.isascii() and _SURROGATE.search(value):
        raise RequestError(Code.TYPE_MISMATCH, "The text holds half a surrogate pair.", where=where)


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
