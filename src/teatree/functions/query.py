"""A query: its arguments, from the log or of a direct read, and its rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from teatree.contracts.errors import Code, RequestError
from teatree.contracts.settings import LimitSettings
from teatree.functions.arguments import Call
from teatree.functions.handles import Parameters

if TYPE_CHECKING:
    import pyarrow as pa

FORMATS = ("json", "arrow")
PAGE_ROWS_DEFAULT = 1_000
"""Rows of a JSON page if the request names none and the model allows as many; an Arrow page has all that it allows."""


@frozen
class Query:
    """The arguments of a `query`."""

    sql: str
    parameters: Parameters
    page_rows: int
    format: str


@frozen
class QueryResult:
    """A query's rows, and how they are to be cut into pages."""

    rows: pa.Table
    page_rows: int
    format: str


def read_query(call: Call, limits: LimitSettings) -> Query:
    """Return the arguments of a `query`, from the log or of a direct read."""
    page_format = call.choice("format", FORMATS, "json")
    rows_max = limits.page_rows_max
    page_rows = call.integer("page_size", rows_max if page_format == "arrow" else min(PAGE_ROWS_DEFAULT, rows_max))
    if not 1 <= page_rows <= limits.page_rows_max:
        raise RequestError(
            Code.OUT_OF_RANGE, f"'page_size' is 1 to {limits.page_rows_max}, not {page_rows}.", where="page_size"
        )
    return Query(call.text("sql"), call.parameters(), page_rows, page_format)
