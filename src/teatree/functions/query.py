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

    @property
    def key(self) -> str:
        """Equal for queries of the same statement."""
        return self.sql

    @property
    def noun(self) -> str:
        """What errors call it."""
        return "The query"

    @property
    def place(self) -> str:
        """Where an error is that names no place itself."""
        return "sql"


@frozen
class QueryResult:
    """A query's rows, and how they are to be cut into pages."""

    rows: pa.Table
    page_rows: int
    format: str


def read_query(call: Call, limits: LimitSettings) -> Query:
    """Return the arguments of a `query`, from the log or of a direct read."""
    page_rows, page_format = read_paging(call, limits)
    return Query(call.text("sql"), call.parameters(), page_rows, page_format)


def read_paging(call: Call, limits: LimitSettings, page_size: int | None = None) -> tuple[int, str]:
    """Take `page_size` and `format`: rows of a page and its form; `page_size` is the function's, if it has one."""
    page_format = call.choice("format", FORMATS, "json")
    rows_max = limits.page_rows_max
    default = PAGE_ROWS_DEFAULT if page_size is None else page_size
    page_rows = call.integer("page_size", rows_max if page_format == "arrow" else min(default, rows_max))
    if not 1 <= page_rows <= rows_max:
        raise RequestError(Code.OUT_OF_RANGE, f"'page_size' is 1 to {rows_max}, not {page_rows}.", where="page_size")
    return page_rows, page_format
