"""The function `query`: one guarded SELECT."""

from __future__ import annotations

from typing import TYPE_CHECKING

from teatree.contracts.errors import Code, OperatorError
from teatree.functions.arguments import Call
from teatree.functions.handles import ReadAccess
from teatree.functions.history import retry_while_unavailable
from teatree.functions.query import Query, QueryResult, read_query
from teatree.functions.traits import Function, Nature, Traits

if TYPE_CHECKING:
    import pyarrow as pa


def query(db: ReadAccess, call: Call) -> QueryResult:
    """Run one guarded SELECT on all that precedes it in the log, or on an earlier `version`.

    sql: One SELECT.
    parameters: The statement's parameters: texts, numbers, true, false or null.
    page_size: Rows of one page, 1 to `page_rows_max`. Left out, 1,000 of JSON, and of Arrow as many as that.
    format: Whether the pages are JSON or Arrow streams.
    version: An earlier version to read instead of all that precedes the request in the log.
    Result: `rows` and `pages`, how many there are of each; the rows come before it in [notices of the kind
        `page`](wire.md#pages).
    """
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


FUNCTIONS = (Function("query", query, Traits(Nature.READS, error_place="sql")),)
