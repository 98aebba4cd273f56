"""The types of a CSV file's columns, guessed from all of its cells: a type that changes none of them, else text."""

from __future__ import annotations

import decimal
import re

import pyarrow as pa
import pyarrow.compute as pc

from teatree.contracts.types.dtypes import Boolean, Date, Decimal, Dtype, Float, Integer, Time, Timestamp, Varchar
from teatree.datasets.bad_value import BadValueError
from teatree.datasets.csv.cells import cell_reader
from teatree.datasets.csv.options import CsvOptions

_DIGITS_MAX = 38
_CERTAIN_DIGITS = 15
"""Digits of a decimal number that every double keeps."""
_INT64 = range(-(2**63), 2**63)
_WORD = r"^(?i:true|false)$"


class ColumnGuess:
    """What one column can still be; `see` all of its cells, then ask for its `dtype`."""

    def __init__(self, options: CsvOptions) -> None:
        self._options = options
        self._seen = False
        self._moments: dict[str, Dtype] = {
            "date": Date(),
            "time": Time(),
            "timestamp": Timestamp("us"),
            "timestamptz": Timestamp("us", tz=True),
        }
        self._kinds = {"boolean", "number", *self._moments}
        self._is_wide = False
        """Whether a whole number needs more than 64 bits."""
        self._is_whole = True
        self._is_double = True
        """Whether the nearest double of each number is written with the same digits."""
        self._has_exponent = False
        self._digits = 0
        """Before the point."""
        self._scale = 0

    def see(self, cells: pa.Array) -> None:
        """Note some cells."""
        no_value = pc.is_in(cells, pa.array([*self._options.null, ""], pa.string()))
        texts = cells.filter(pc.invert(no_value)).unique()
        if not len(texts):
            return
        self._seen = True
        if "boolean" in self._kinds and not _all(texts, _WORD):
            self._kinds.discard("boolean")
        if "number" in self._kinds and not self._see_numbers(texts):
            self._kinds.discard("number")
        for kind, dtype in self._moments.items():
            if kind in self._kinds and not self._reads_all(texts, dtype):
                self._kinds.discard(kind)

    @property
    def dtype(self) -> Dtype:
        """The type that holds all cells seen."""
        if not self._seen:
            return Varchar()
        if "boolean" in self._kinds:
            return Boolean()
        if "number" in self._kinds:
            return self._number()
        return next((dtype for kind, dtype in self._moments.items() if kind in self._kinds), Varchar())

    def _number(self) -> Dtype:
        if self._is_whole and self._digits <= _DIGITS_MAX:
            return Integer(128 if self._is_wide else 64)
        if self._is_double:
            return Float(64)
        if not self._has_exponent and self._digits + self._scale <= _DIGITS_MAX:
            return Decimal(max(18, self._digits + self._scale), self._scale)
        return Varchar()

    def _see_numbers(self, texts: pa.Array) -> bool:
        """Note numbers; returns False if one is none, or its text holds more: 007, +49."""
        if not _all(texts, f"^{_canonical(self._options)}$"):
            return False
        plain = texts
        if self._options.thousands:
            plain = pc.replace_substring(plain, self._options.thousands, "")
        if self._options.decimal == ",":
            plain = pc.replace_substring(plain, ",", ".")
        parts = pc.extract_regex(plain, r"^-?(?P<whole>[0-9]+)(?:\.(?P<fraction>[0-9]+))?(?P<exponent>[eE].*)?$")
        whole, fraction, exponent = (pc.binary_length(pc.struct_field(parts, i)) for i in range(3))
        self._digits = max(self._digits, pc.max(whole).as_py())
        self._scale = max(self._scale, pc.max(fraction).as_py())
        self._has_exponent |= pc.max(exponent).as_py() > 0
        self._is_whole &= not (self._scale or self._has_exponent or _any(plain, "^-0$"))
        uncertain = pc.or_(pc.greater(pc.add(whole, fraction), _CERTAIN_DIGITS), pc.greater(exponent, 0))
        for text in plain.filter(uncertain).to_pylist():
            if self._is_whole and not self._is_wide and int(text) not in _INT64:
                self._is_wide = True
            if self._is_double and decimal.Decimal(repr(float(text))) != decimal.Decimal(text):
                self._is_double = False
        return True

    def _reads_all(self, texts: pa.Array, dtype: Dtype) -> bool:
        read = cell_reader(dtype, self._options)
        try:
            for text in texts.to_pylist():
                read(text)
        except BadValueError:
            return False
        return True


def _canonical(options: CsvOptions) -> str:
    """Return the regular expression of a number that is written again as it stands."""
    grouped = rf"[1-9][0-9]{{0,2}}(?:{re.escape(options.thousands)}[0-9]{{3}})+|" if options.thousands else ""
    mark = re.escape(options.decimal)
    return rf"-?(?:{grouped}0|[1-9][0-9]*)(?:{mark}[0-9]+)?(?:[eE][+-]?[0-9]{{1,3}})?"


def _all(texts: pa.Array, form: str) -> bool:
    return bool(pc.all(pc.match_substring_regex(texts, form)).as_py())


def _any(texts: pa.Array, form: str) -> bool:
    return bool(pc.any(pc.match_substring_regex(texts, form)).as_py())
