"""The conversion of a CSV file's cells to a column's type: exact, or refused with the first row that does not fit.

Numbers, days and the rest mean what they mean as JSON texts (`values.converter`); Arrow converts the common forms of
numbers, which are many and differ, all others are converted once for each distinct text.
"""

from __future__ import annotations

import decimal
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from teatree.contracts.errors import Code, RequestError
from teatree.contracts.formats.codec import parse_json
from teatree.contracts.types.dtypes import (
    DECIMAL_PRECISION_MAX,
    Array,
    Blob,
    Boolean,
    Date,
    Decimal,
    Dtype,
    Enum,
    Float,
    Integer,
    Json,
    List,
    Map,
    Struct,
    Timestamp,
    Varchar,
)
from teatree.datasets.arrow.arrays import build_array
from teatree.datasets.arrow.types import to_arrow_type
from teatree.datasets.bad_value import BadValueError, mismatch
from teatree.datasets.csv.options import CsvOptions
from teatree.datasets.fit_array import first_bad, fit_array
from teatree.datasets.iso import PER_SECOND
from teatree.datasets.values import converter

_TEXT_TYPES = (Varchar, Enum, Blob)
_WORDS = {
    **dict.fromkeys(("true", "t", "yes", "y", "1"), True),
    **dict.fromkeys(("false", "f", "no", "n", "0"), False),
}
_FLOAT_WORDS = {"nan": "NaN", "inf": "Infinity", "infinity": "Infinity"}
_NUMBER_CHARS_MAX = 200
_WHOLE = r"^[+-]?[0-9]{1,18}$"
_POINT = r"^[+-]?[0-9]{1,30}(?:\.[0-9]{1,30})?$"
_DOUBLE = r"^[+-]?[0-9]{1,30}(?:\.[0-9]{1,30})?(?:[eE][+-]?[0-9]{1,3})?$"
_EXACT_MAX = {32: 2**24, 64: 2**53}
"""Whole numbers that a float of so many bits keeps apart."""
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001


class BadCellError(Exception):
    """The first cell of a column that is none of its values."""

    def __init__(self, row: int, error: BadValueError, text: str) -> None:
        super().__init__(error.message)
        self.row = row
        self.error = error
        self.text = text


def without_nulls(cells: pa.Array, quoted: np.ndarray[Any, Any], dtype: Dtype, options: CsvOptions) -> pa.Array:
    """Return a column's cells, those that mean NULL as nulls; blanks round values other than texts are removed."""
    if isinstance(dtype, _TEXT_TYPES):
        is_null = pc.and_(pc.is_in(cells, pa.array(options.null, pa.string())), pa.array(~quoted))
    else:
        cells = pc.utf8_trim_whitespace(cells)
        is_null = pc.is_in(cells, pa.array([*options.null, ""], pa.string()))
    return pc.if_else(is_null, pa.scalar(None, pa.string()), cells)


def convert_cells(texts: pa.Array, dtype: Dtype, options: CsvOptions) -> pa.Array:
    """Return texts as exactly `to_arrow_type(dtype)`; raises `BadCellError`."""
    match dtype:
        case Varchar():
            return texts
        case Enum() | Json():
            return _fitted(texts, dtype)
        case Integer() | Float() | Decimal():
            fast = _numbers(_plain_numbers(texts, options), dtype)
            return _by_value(texts, dtype, options) if fast is None else fast
        case _:
            return _by_value(texts, dtype, options)


def _fitted(texts: pa.Array, dtype: Dtype) -> pa.Array:
    try:
        return fit_array(texts, dtype)
    except BadValueError:
        row, error = first_bad(texts, dtype)
        raise BadCellError(row, error, str(texts[row])) from None


# --- the common forms of numbers ---


def _plain_numbers(texts: pa.Array, options: CsvOptions) -> pa.Array | None:
    """Return numbers with a point and without thousands; None if some are none in the file's own form."""
    if options.decimal == "." and not options.thousands:
        return texts
    if not _all(pc.match_substring_regex(texts, f"^{local_number(options)}$")):
        return None
    if options.thousands:
        texts = pc.replace_substring(texts, options.thousands, "")
    return pc.replace_substring(texts, ",", ".") if options.decimal == "," else texts


def local_number(options: CsvOptions) -> str:
    """Return the regular expression of a number as the file writes it."""
    mark = re.escape(options.decimal)
    grouped = rf"[0-9]{{1,3}}(?:{re.escape(options.thousands)}[0-9]{{3}})+|" if options.thousands else ""
    return rf"[+-]?(?:(?:{grouped}[0-9]+)(?:{mark}[0-9]*)?|{mark}[0-9]+)(?:[eE][+-]?[0-9]{{1,4}})?"


def _numbers(texts: pa.Array | None, dtype: Integer | Float | Decimal) -> pa.Array | None:
    """Return numbers of the common forms, or None where one of them needs a closer look."""
    if texts is None:
        return None
    form = _WHOLE if isinstance(dtype, Integer) else _POINT if isinstance(dtype, Decimal) else _DOUBLE
    if not _all(pc.match_substring_regex(texts, form)):
        return None
    try:
        if isinstance(dtype, Integer):
            whole = pc.utf8_ltrim(texts, "+").cast(pa.int64())
            return None if dtype.bits == 128 else whole.cast(to_arrow_type(dtype))
        if isinstance(dtype, Decimal):
            longest = pc.max(pc.binary_length(texts)).as_py() or 0
            if longest + dtype.scale > DECIMAL_PRECISION_MAX:
                return None  # Arrow multiplies in 128 bits before it looks at the result, which may wrap around
            return texts.cast(to_arrow_type(dtype))
        doubles = texts.cast(pa.float64())
    except pa.ArrowInvalid:
        return None
    sizes = pc.abs(doubles)
    if not _all(pc.less(sizes, _EXACT_MAX[dtype.bits])):
        return None
    return doubles.cast(to_arrow_type(dtype))


def _all(flags: pa.Array) -> bool:
    return bool(pc.all(flags, min_count=0).as_py())


# --- all forms of all types ---


def _by_value(texts: pa.Array, dtype: Dtype, options: CsvOptions) -> pa.Array:
    """Convert each distinct text once."""
    read = cell_reader(dtype, options)
    encoded = texts.dictionary_encode()
    values: list[Any] = []
    for place, text in enumerate(encoded.dictionary.to_pylist()):
        try:
            values.append(read(text))
        except BadValueError as e:  # distinct texts have the order of their first rows
            raise BadCellError(encoded.indices.index(place).as_py(), e, text) from None
    values.append(None)
    places = encoded.indices.fill_null(len(values) - 1).to_pylist()
    return build_array(dtype, [values[place] for place in places])


def cell_reader(dtype: Dtype, options: CsvOptions) -> Callable[[str], Any]:
    """Return the function that converts one text to what `build_array` takes; it raises `BadValueError`."""
    convert = converter(dtype)
    match dtype:
        case Boolean():
            return lambda text: _boolean(text, dtype)
        case Integer() | Float() | Decimal():
            return _number_reader(dtype, options)
        case Date() if options.date_format is not None:
            form = options.date_format
            return lambda text: _day(_strptime(text, form, dtype), text, dtype)
        case Timestamp() if options.timestamp_format is not None or options.date_format is not None:
            return _moment_reader(dtype, options)
        case List() | Array() | Struct() | Map():
            return lambda text: convert(_json(text, dtype))
        case _:
            return convert


def _boolean(text: str, dtype: Dtype) -> bool:
    found = _WORDS.get(text.lower())
    return mismatch(text, dtype) if found is None else found


def _number_reader(dtype: Integer | Float | Decimal, options: CsvOptions) -> Callable[[str], Any]:
    convert = converter(dtype)
    form = re.compile(local_number(options))

    def read(text: str) -> Any:
        sign, word = ("-", text[1:]) if text.startswith("-") else ("", text.removeprefix("+"))
        if isinstance(dtype, Float) and word.lower() in _FLOAT_WORDS:
            name = _FLOAT_WORDS[word.lower()]
            return convert(name if name == "NaN" else sign + name)
        if len(text) > _NUMBER_CHARS_MAX or not form.fullmatch(text):
            mismatch(text, dtype)
        plain = text.replace(options.thousands, "") if options.thousands else text
        plain = plain.replace(",", ".") if options.decimal == "," else plain
        whole = plain.lstrip("+-").isdigit() and int(plain)  # a float keeps the sign of zero
        return convert(whole or decimal.Decimal(plain))

    return read


def _strptime(text: str, form: str, dtype: Dtype) -> datetime:
    try:
        return datetime.strptime(text, form)  # noqa: DTZ007 - the format decides whether there is an offset
    except ValueError:
        mismatch(text, dtype, f"is not written as {form}")


def _day(found: datetime, text: str, dtype: Dtype) -> int:
    since = found.replace(tzinfo=None) - _EPOCH
    return mismatch(text, dtype, "has a time of day, which is not kept") if since % timedelta(days=1) else since.days


def _moment_reader(dtype: Timestamp, options: CsvOptions) -> Callable[[str], Any]:
    convert = converter(dtype)

    def read(text: str) -> Any:
        if options.timestamp_format is not None:
            return moment(_strptime(text, options.timestamp_format, dtype), text)
        try:
            day = _strptime(text, options.date_format or "", dtype)
        except BadValueError:
            return convert(text)
        return moment(day, text)

    def moment(found: datetime, text: str) -> int:
        if dtype.tz != (found.tzinfo is not None):
            mismatch(text, dtype, "has no offset from UTC (%z)" if dtype.tz else "has an offset, which is not kept")
        since = found.replace(tzinfo=None) - (found.utcoffset() or timedelta()) - _EPOCH
        micros = since // timedelta(microseconds=1)
        exact, rest = divmod(micros * PER_SECOND[dtype.unit], PER_SECOND["us"])
        return mismatch(text, dtype, "has digits that the type does not keep") if rest else exact

    return read


def _json(text: str, dtype: Dtype) -> Any:
    try:
        return parse_json(text.encode(), "cell")
    except RequestError as e:
        raise BadValueError(Code.TYPE_MISMATCH, f"{e.message} ({dtype}).") from None
