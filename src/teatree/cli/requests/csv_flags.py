"""Options of commands that read CSV files."""

from __future__ import annotations

from typing import Annotated, Any

from attrs import frozen
from cyclopts import Group, Parameter

CSV = Group("CSV files", sort_key=50)


@Parameter(name="*")
@frozen
class CsvFlags:
    """The format of a CSV file."""

    delimiter: Annotated[str | None, Parameter(group=CSV, allow_leading_hyphen=True)] = None
    """Character between cells, a comma if left out (in a .tsv a tab); \\t for a tab."""
    quote: Annotated[str | None, Parameter(group=CSV, allow_leading_hyphen=True)] = None
    """Quote character, a double quote if left out; empty if nothing is quoted."""
    encoding: Annotated[str | None, Parameter(group=CSV)] = None
    """Encoding, UTF-8 if left out: cp1252, latin-1, utf-16, …"""
    null: Annotated[tuple[str, ...] | None, Parameter(group=CSV, allow_leading_hyphen=True)] = None
    """A cell that means NULL, an empty one if left out; can be repeated."""
    decimal: Annotated[str | None, Parameter(group=CSV)] = None
    """Character before the fraction of a number: . or ,"""
    thousands: Annotated[str | None, Parameter(group=CSV)] = None
    """Character between groups of three digits, none if left out."""
    date_format: Annotated[str | None, Parameter(group=CSV)] = None
    """Format of dates, in strptime's letters: %d.%m.%Y. ISO 8601 if left out."""
    timestamp_format: Annotated[str | None, Parameter(group=CSV)] = None
    """Format of timestamps, likewise."""
    no_header: Annotated[bool, Parameter(group=CSV, negative="")] = False
    """The first line does not name the columns: they are those of the table, in order."""

    @property
    def given(self) -> dict[str, Any]:
        """The options that were given, as `load` takes them."""
        tab = "\t" if self.delimiter == "\\t" else self.delimiter
        options = {
            "delimiter": tab,
            "quote": self.quote,
            "encoding": self.encoding,
            "null": None if self.null is None else list(self.null),
            "decimal": self.decimal,
            "thousands": self.thousands,
            "date_format": self.date_format,
            "timestamp_format": self.timestamp_format,
            "header": False if self.no_header else None,
        }
        return {name: value for name, value in options.items() if value is not None}


NO_FLAGS = CsvFlags()
