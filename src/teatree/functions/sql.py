"""The built-in functions `sql` and `query`: guarded statements."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from teatree.contracts.errors import Code, OperatorError, RequestError
from teatree.contracts.settings import LimitSettings
from teatree.functions.arguments import Call
from teatree.functions.handles import Parameters, Read, Write
from teatree.functions.history import retry_while_unavailable

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


def sql(db: Write, call: Call) -> dict[str, int]:
    """Run one guarded INSERT, UPDATE, DELETE or MERGE."""
    statement = call.text("statement")
    parameters = call.parameters()
    call.finish()
    return {"rows": db.statement(statement, parameters)}


def query(db: Read, call: Call) -> QueryResult:
    """Run one guarded SELECT on all that precedes it in the log, or on an earlier `version`."""
    query = read_query(call, call.context.limits)
    version = call.integer("version", None)
    call.finish()
    rows = db.query(query.sql, query.parameters) if version is None else _query_version(call, version, query)
    return QueryResult(rows, query.page_rows, query.format)


def _query_version(call: Call, number: int, query: Query) -> pa.Table:
    history, limits = call.context.history, call.context.limits
    if history is None:
        raise OperatorError(Code.INTERNAL, "query was called where there is no history.")
    what = "The version could not be read"
    manifest = retry_while_unavailable(limits, what, "version", lambda: history.version(number))
    return retry_while_unavailable(
        limits, what, "version", lambda: history.answer(manifest, query.sql, query.parameters, limits)
    )


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
