"""Appends that wait to become one INSERT for each table, and those of them that repeat a primary key.

Trying them one by one costs a transaction for each that is refused, since DuckDB has no savepoints. Their keys are
looked up in one query instead; keys that it cannot know (a computed default) are left to the INSERT
(docs/decisions/0020).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np
import pyarrow as pa
from typing_extensions import override

from teatree.contracts.errors import RequestError
from teatree.contracts.formats.requests import CONTENT_ARROW, Request
from teatree.contracts.types.schema import Schema
from teatree.contracts.types.table_info import TableInfo
from teatree.datasets.arrow.types import to_arrow_schema
from teatree.datasets.ddl import quote, quote_literal
from teatree.datasets.rows import RowDecoder, RowGroup
from teatree.functions.arguments import VALUE_BYTES, Call
from teatree.functions.handles import ROWS_VIEW, ReadAccess, SqlAccess, WriteAccess
from teatree.functions.inserts import duplicate_key, insert
from teatree.functions.waiting_calls import CallGroup, WaitingCalls

_TEXT = re.compile(r"'(?:[^']|'')*'")
_COMPUTED = re.compile(r"now|uuid|current_")


def append_arguments(db: ReadAccess, call: Call) -> tuple[TableInfo, list[dict[str, Any]] | pa.Table]:
    """Return the table and the rows of an `append`."""
    table = db.table(call.text("table"))
    rows = call.rows(len(table.schema))
    call.finish(takes_rows=True)
    return table, rows


class TableAppends(CallGroup):
    """Decoded rows of appends to one table, each row with the request that it belongs to."""

    def __init__(self, table: TableInfo) -> None:
        self._table = table
        self._decoder = RowDecoder(table.schema)
        self._groups: dict[tuple[str, ...], list[tuple[int, RowGroup]]] = {}
        """By the columns that they give; each group with the number of its request."""
        self._requests: list[Request] = []

    @property
    @override
    def requests(self) -> Sequence[Request]:
        return self._requests

    def add(self, number: int, request: Request, rows: object) -> None:
        """Decode and add the rows of a request."""
        groups = self._decoder.decode(rows, "rows")
        self._requests.append(request)
        for group in groups:
            self._groups.setdefault(group.columns, []).append((number, group))

    @override
    def run(self, db: WriteAccess, without: AbstractSet[int]) -> None:
        wanted = ([g for number, g in pairs if number not in without] for pairs in self._groups.values())
        tables = [self._decoder.to_table(groups) for groups in wanted if groups]
        if tables:
            insert(db, self._table, tables)

    @override
    def refusals(self, db: WriteAccess) -> Mapping[int, RequestError]:
        """Return the requests that would repeat a key.

        The first request that has a key wins, unless the table holds it already; one that is refused takes no key from
        those behind it. A request whose key cannot be known before the INSERT is not among them.
        """
        if not self._table.primary_key or not isinstance(db, SqlAccess):  # no other handle finds them in one query
            return {}
        keys = self._table.schema.select(self._table.primary_key)
        pairs = self._groups.items()
        parts = [part for columns, of in pairs if (part := _key_rows(self._decoder, columns, of, keys))]
        if not parts:
            return {}
        repeated = _losers(db.run_with(pa.concat_tables(parts), _lookup_sql(self._table, keys)))
        return {number: duplicate_key(key) for number, key in repeated.items()}


class WaitingAppends(WaitingCalls):
    """Appends of JSON rows, by table: tables have no foreign keys, so the order matters only within each."""

    def __init__(self) -> None:
        self._tables: dict[str, TableAppends] = {}
        self._size_bytes = 0

    @override
    def takes(self, request: Request) -> bool:
        return request.content_type != CONTENT_ARROW

    @override
    def add(self, number: int, db: ReadAccess, call: Call) -> tuple[dict[str, int], tuple[str, ...]]:
        table, rows = append_arguments(db, call)
        appends = self._tables.get(table.name) or TableAppends(table)
        appends.add(number, call.request, rows)
        self._tables[table.name] = appends
        self._size_bytes += len(rows) * len(table.schema) * VALUE_BYTES
        return {"rows": len(rows)}, (table.name,) if rows else ()

    @property
    @override
    def size_bytes(self) -> int:
        return self._size_bytes

    @override
    def groups(self) -> Sequence[CallGroup]:
        return list(self._tables.values())


def _key_rows(
    decoder: RowDecoder, columns: tuple[str, ...], pairs: Sequence[tuple[int, RowGroup]], keys: Schema
) -> pa.Table | None:
    """Return the keys of rows, with their requests' numbers; None if a key's default is computed."""
    left_out = [column for column in keys if column.name not in columns]
    if any(column.default is None or _COMPUTED.search(_TEXT.sub("", column.default)) for column in left_out):
        return None
    rows = decoder.to_table([group for _, group in pairs])
    count = rows.num_rows
    numbers = np.repeat([number for number, _ in pairs], [len(group.rows) for _, group in pairs])
    arrays: list[pa.Array | pa.ChunkedArray] = [pa.array(numbers, pa.int64())]
    for column, field in zip(keys, to_arrow_schema(keys), strict=True):
        is_given = column.name in columns
        arrays.append(pa.array(np.full(count, is_given)))
        arrays.append(rows.column(column.name) if is_given else pa.nulls(count, field.type))
    names = [name for place in range(len(keys)) for name in (f"given{place}", f"sent{place}")]
    return pa.table(arrays, names=["number", *names])


def _lookup_sql(table: TableInfo, keys: Schema) -> str:
    defaults = [column.default or "NULL" for column in keys]
    values = ", ".join(
        f"CAST(CASE WHEN given{place} THEN sent{place} ELSE {default} END AS {column.dtype}) AS key{place}"
        for place, (column, default) in enumerate(zip(keys, defaults, strict=True))
    )
    names = ", ".join(f"key{place}" for place in range(len(keys)))
    same = " AND ".join(f"t.{quote(column.name)} = key{place}" for place, column in enumerate(keys))
    text = " || ', ' || ".join(
        f"{quote_literal(column.name + ': ')} || CAST(key{place} AS VARCHAR)" for place, column in enumerate(keys)
    )
    return (
        f"WITH sent AS (SELECT number, {values} FROM {ROWS_VIEW}), "
        f"ranked AS (SELECT *, dense_rank() OVER (ORDER BY {names}) AS id FROM sent) "
        f"SELECT number, id, EXISTS (SELECT 1 FROM {quote(table.name)} AS t WHERE {same}), {text} FROM ranked "
        "ORDER BY number, id"
    )


def _losers(rows: Sequence[tuple[int, int, bool, str]]) -> dict[int, str]:
    used: set[int] = set()
    own: set[int] = set()
    losers: dict[int, str] = {}
    current = None
    for number, key, is_there, text in rows:
        if number != current:
            if current not in losers:
                used |= own
            current, own = number, set()
        if number not in losers and (is_there or key in used or key in own):
            losers[number] = text
        own.add(key)
    return losers
