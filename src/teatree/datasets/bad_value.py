"""A value that a type cannot hold: the error, and how each kind of it is refused."""

from __future__ import annotations

from typing import Any, NoReturn

from teatree.contracts.errors import Code
from teatree.contracts.shown import SHOWN_CHARS_MAX, shown
from teatree.contracts.types.dtypes import Dtype


class BadValueError(Exception):
    """A value that a type cannot hold; `path` is its place below the column."""

    def __init__(self, code: Code, message: str, path: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.path = path


def mismatch(value: Any, dtype: Dtype, why: str | None = None) -> NoReturn:
    """Refuse a value that is none of its type."""
    name = str(dtype) if len(str(dtype)) <= SHOWN_CHARS_MAX else str(dtype)[:SHOWN_CHARS_MAX] + "…"
    message = f"{shown(value)} {why} ({name})." if why else f"{shown(value)} is not a value of type {name}."
    raise BadValueError(Code.TYPE_MISMATCH, message)


def lossy(value: Any, dtype: Dtype) -> NoReturn:
    """Refuse a number that its type would round."""
    raise BadValueError(Code.LOSSY_NUMBER, f"{shown(value)} would lose digits as {dtype}.")


def out_of_range(value: Any, dtype: Dtype) -> NoReturn:
    """Refuse a value beyond the range of its type."""
    raise BadValueError(Code.OUT_OF_RANGE, f"{shown(value)} is out of range for {dtype}.")


def encodable(value: str) -> str:
    """Return a text; refuses one that has no UTF-8."""
    try:
        value.encode()
    except UnicodeEncodeError as e:
        code = f"U+{ord(value[e.start]):04X}"
        raise BadValueError(
            Code.TYPE_MISMATCH, f"The text holds half a surrogate pair, {code} at character {e.start + 1}."
        ) from None
    return value
