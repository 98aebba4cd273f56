"""Appends of one table that wait to become one INSERT, and those of them that repeat a primary key.

Trying them one by one costs a transaction for each that is refused, since DuckDB has no savepoints. Their keys are
looked up in one query instead; keys that it cannot know (a computed default) are left to the INSERT
(docs/decisions/0020).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from teatree.contracts.requests import Request
from teatree.contracts.schema import Schema
from teatree.contracts.table_info import TableInfo
from teatree.datasets.arrow import to_arrow_schema
from teatree.datasets.ddl import quote, quote_literal
from teatree.functions.handles import ROWS_VIEW, Write

if TYPE_CHECKING:
    from teatree.datasets.rows import RowDecoder, RowGroup

_TEXT = re.compile(r"'(?:[^']|'')*'")
_COMPUTED = re.compile(r"now|uuid|current_")


class WaitingAppends:
    """Decoded rows of appends, each row with the request that it belongs to."""

    def __init__(self, decoder: RowDecoder) -> None:
        self.decoder = decoder
        self._groups: dict[tuple[str, ...], list[tuple[int, RowGroup]]] = {}
        """By the columns that they give; each group with the number of its request."""
        self.requests: list[Request] = []

    def add(self, number: int, request: Request, groups: Sequence[RowGroup]) -> None:
        """Add the rows of a request; `number` orders it among the others."""
        self.requests.append(request)
        for group in groups:
            self._groups.setdefault(group.columns, []).append((number, group))

    def tables(self, without: set[int] = frozenset()) -> list[pa.Table]:  # type: ignore[assignment]
        """Return the rows as one table for each set of columns, without those of some requests."""
        wanted = ([g for number, g in pairs if number not in without] for pairs in self._groups.values())
        return [self.decoder.to_table(groups) for groups in wanted if groups]

    def repeated_keys(self, db: Write, table: TableInfo) -> dict[int, str]:
        """Return the requests that would repeat a key, in the order of the log, each with the key.

        The first request that has a key wins, unless the table holds it already; one that is refused takes no key from
        those behind it. A request whose key cannot be known before the INSERT is not among them.
        """
        if not table.primary_key:
            return {}
        keys = table.schema.select(table.primary_key)
        parts = [part for columns, pairs in self._groups.items() if (part := _key_rows(self, columns, pairs, keys))]
        if not parts:
            return {}
        return _losers(db.run_with(pa.concat_tables(parts), _lookup_sql(table, keys)))


def _key_rows(
    appends: WaitingAppends, columns: tuple[str, ...], pairs: Sequence[tuple[int, RowGroup]], keys: Schema
) -> pa.Table | None:
    """Return the keys of rows, with their requests' numbers; None if a key's default is computed."""
    left_out = [column for column in keys if column.name not in columns]
    if any(column.default is None or _COMPUTED.search(_TEXT.sub("", column.default)) for column in left_out):
        return None
    rows = appends.decoder.to_table([group for _, group in pairs])
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
