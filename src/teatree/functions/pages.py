"""Pages: pieces of a query's rows, as they are sent and stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from attrs import frozen

from teatree.contracts.errors import Code, RequestError
from teatree.contracts.formats.codec import dump_json
from teatree.datasets.arrow.types import from_arrow_schema
from teatree.datasets.results.json_values import columns_to_json, rows_to_json

if TYPE_CHECKING:
    import pyarrow as pa

    from teatree.functions.query import QueryResult


@frozen
class Page:
    """One piece of a result, as it is sent and stored."""

    number: int
    """From 1."""
    rows: int
    format: str
    body: bytes
    """An Arrow stream, or JSON `{"page", "pages", "columns", "rows"}`."""


def cut_pages(answer: QueryResult, pages_max: int, check: Callable[[], None] = lambda: None) -> list[Page]:
    """Return the pages of an answer, at least one: an empty result has its columns.

    `check` is called after each page; it raises if there is no more time. Raises `result_too_large` beyond `pages_max`,
    or what is wrong with a column that cannot be returned.
    """
    pages: list[Page] = []
    for page in each_page(answer, pages_max):
        pages.append(page)
        check()
    return pages


def each_page(answer: QueryResult, pages_max: int) -> Iterator[Page]:
    """Yield the pages of an answer, each made when it is asked for; raises as `cut_pages` does, before the first."""
    starts = range(0, max(answer.rows.num_rows, 1), answer.page_rows)
    if len(starts) > pages_max:
        raise RequestError(
            Code.RESULT_TOO_LARGE,
            f"The result has {len(starts):,} pages; {pages_max:,} is the most.",
            where="page_size",
            hint="Ask for more rows a page, or for less.",
        )
    columns = column_types(answer)
    for number, start in enumerate(starts, 1):
        yield _page(answer.rows.slice(start, answer.page_rows), number, len(starts), answer.format, columns)


def column_types(answer: QueryResult) -> list[dict[str, str]]:
    """Return the names and types of an answer's columns; raises for a type that only DuckDB has, or a repeated name."""
    try:
        return columns_to_json(from_arrow_schema(answer.rows.schema))
    except RequestError as e:  # its place is one in a schema, which was not sent
        raise RequestError(e.code, f"The result cannot be returned: {e.message}", where="sql", hint=e.hint) from e


def _page(rows: pa.Table, number: int, pages: int, form: str, columns: list[dict[str, str]]) -> Page:
    if form == "arrow":
        body = arrow_stream(rows)
    else:
        members: dict[str, Any] = {"page": number, "pages": pages, "columns": columns}
        members["rows"] = rows_to_json(rows, as_written=True)
        body = dump_json(members)
    return Page(number=number, rows=rows.num_rows, format=form, body=body)


def arrow_stream(rows: pa.Table, *, compressed: bool = True) -> bytes:
    """Return rows as an Arrow stream."""
    import pyarrow as pa  # noqa: PLC0415

    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="zstd" if compressed else None)
    with pa.ipc.new_stream(sink, rows.schema, options=options) as writer:
        writer.write_table(rows)
    return bytes(sink.getvalue().to_pybytes())


def page_key(version: int, write_id: str, request_id: str, number: int) -> str:
    """Return a page's key below the model's folder."""
    return f"pages/{version:020d}-{write_id}/{request_id}/{number:06d}"
