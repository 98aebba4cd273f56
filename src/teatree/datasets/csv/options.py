"""`CsvOptions`: how a CSV file writes its cells."""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from attrs import frozen

from teatree.contracts.errors import Code, RequestError
from teatree.contracts.shown import shown

DELIMITERS = (";", "\t", "|", ",")
"""What a header is searched for when it does not fit: the first one found is the hint."""
THOUSANDS = ("", ".", ",", "'", "\u2019", " ", "\u00a0", "\u202f", "_")
_DECIMALS = (".", ",")
_NO_TEXT = frozenset({"idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined", "utf-7", "mbcs", "oem"})
"""Codecs that are not the encoding of a file."""
_SAMPLE = datetime(1987, 11, 26, 21, 43, 35)  # noqa: DTZ001 - a wall-clock moment whose parts all differ


@frozen
class CsvOptions:
    """The options of one CSV file; those that are not given have the defaults of most programs."""

    delimiter: str | None = None
    """Between cells: one ASCII character; a comma, in a `.tsv` a tab."""
    quote: str = '"'
    """Round cells that hold a delimiter, a quote (doubled there) or a line break; empty: nothing is quoted."""
    encoding: str | None = None
    """Python's name of the file's encoding; UTF-8, or UTF-16 where the file begins with its mark."""
    null: tuple[str, ...] = ("",)
    """Cells that are NULL; in a text column only where they are not quoted. In columns of other types an empty cell is
    NULL, too."""
    decimal: str = "."
    """Before the fraction of a number."""
    thousands: str = ""
    """Between each three digits of a whole number; empty: numbers have none."""
    date_format: str | None = None
    """How days are written, in `strptime`'s letters (`%d.%m.%Y`); ISO 8601 if it is not given."""
    timestamp_format: str | None = None
    """How moments are written, likewise."""
    header: bool = True
    """Whether the first line names the columns; without it they are the table's, in order."""

    def delimiter_of(self, name: str) -> str:
        """Return the delimiter in a file of this name."""
        return self.delimiter or ("\t" if name.lower().endswith(".tsv") else ",")


OPTION_NAMES = tuple(attribute.name for attribute in CsvOptions.__attrs_attrs__)


def read_csv_options(given: Mapping[str, Any]) -> CsvOptions:
    """Return the options that a request or a command line names.

    Raises `unknown_argument`, or `bad_argument` for a value that is of no use.
    """
    if unknown := [name for name in given if name not in OPTION_NAMES]:
        message = f"There is no option {unknown[0]!r} of CSV files."
        raise RequestError(
            Code.UNKNOWN_ARGUMENT, message, where=unknown[0], hint=f"There are {', '.join(OPTION_NAMES)}."
        )
    found = {name: _text_or_flag(name, value) for name, value in given.items() if value is not None}
    if "null" in given and given["null"] is not None:
        found["null"] = _nulls(given["null"])
    options = CsvOptions(**found)
    _check_characters(options)
    if options.encoding is not None:
        _check_encoding(options.encoding)
    for name, days_only in (("date_format", True), ("timestamp_format", False)):
        if (form := found.get(name)) is not None:
            _check_format(name, form, days_only=days_only)
    return options


def _text_or_flag(name: str, value: Any) -> Any:
    if name == "null":
        return value
    kind, noun = (bool, "true or false") if name == "header" else (str, "a text")
    if not isinstance(value, kind):
        raise _bad(name, f"must be {noun}, not {shown(value)}")
    return value


def _nulls(value: Any) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) for text in texts):
        raise _bad("null", "must be a text, or a list of texts")
    return tuple(texts)


def _check_characters(options: CsvOptions) -> None:
    if options.delimiter is not None and (not _is_one_character(options.delimiter) or options.delimiter.isalnum()):
        raise _bad("delimiter", f"must be one ASCII character between cells, not {options.delimiter!r}")
    if options.quote and (not _is_one_character(options.quote) or options.quote.isalnum()):
        raise _bad("quote", f"must be one ASCII character round cells, or empty, not {options.quote!r}")
    if options.quote and options.quote == options.delimiter:
        raise _bad("quote", f"is the delimiter too: {options.quote!r}")
    if options.decimal not in _DECIMALS:
        raise _bad("decimal", f"must be '.' or ',', not {options.decimal!r}")
    if options.thousands not in THOUSANDS:
        raise _bad("thousands", f"must be one of {', '.join(map(repr, THOUSANDS))}, not {options.thousands!r}")
    if options.thousands == options.decimal:
        raise _bad("thousands", f"is the decimal character too: {options.decimal!r}", "Give `decimal` as well.")


def _is_one_character(text: str) -> bool:
    return len(text) == 1 and text.isascii() and text not in "\r\n\0"


def _check_encoding(name: str) -> None:
    try:
        found = codecs.lookup(name)
        usable = found.name not in _NO_TEXT and isinstance("".encode(name), bytes)
    except (LookupError, ValueError):
        usable = False
    if not usable:
        raise _bad("encoding", f"is no encoding of texts: {name!r}", "For example utf-8, cp1252, latin-1 or utf-16.")


def _check_format(name: str, form: str, *, days_only: bool) -> None:
    """Refuse a format that loses a part of what it reads, by reading back what it writes."""
    wanted = _SAMPLE.replace(hour=0, minute=0, second=0) if days_only else _SAMPLE.replace(second=0)
    try:
        found = datetime.strptime(wanted.strftime(form), form).replace(tzinfo=None)  # noqa: DTZ007
    except ValueError as e:
        raise _bad(name, f"is no format of strptime: {form!r} ({e})") from None
    if found != wanted:
        parts = "year, month and day" if days_only else "year, month, day, hour and minute"
        raise _bad(name, f"does not name {parts}: {form!r}", "For example %d.%m.%Y, or %d.%m.%Y %H:%M:%S.")


def _bad(name: str, what: str, hint: str | None = None) -> RequestError:
    return RequestError(Code.BAD_ARGUMENT, f"{name!r} {what}.", where=name, hint=hint)
