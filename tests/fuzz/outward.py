"""Converters of output: JSON pages, Arrow pages, Python, Polars, the CLI's CSV, Parquet archives."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from fuzz.kinds import SqlType
from fuzz.readback import arrow_values, json_sql, nested, python_sql
from fuzz.report import FuzzReport
from fuzz.truth import OwnText, Truth, comparable
from fuzz.values import Value
from teatree.cli.output import Output
from teatree.cli.requests.query_reply import print_reply
from teatree.client.pages import join_pages
from teatree.contracts.errors import Code, RequestError
from teatree.contracts.formats.codec import dump_json
from teatree.contracts.settings import LimitSettings
from teatree.contracts.types.schema import Field, Schema, parse_dtype
from teatree.datasets.arrow.types import lossless
from teatree.datasets.dataset import Dataset
from teatree.datasets.parquet import parquet_columns
from teatree.engine.duckdb.handle import fetch_rows
from teatree.functions.pages import cut_pages
from teatree.functions.query import QueryResult

LIMITS = LimitSettings()
PAGE_ROWS = 20
Read = Callable[[SqlType], list[str]]
_REFUSES = (Code.OUT_OF_RANGE,)


class Outward:
    """The ways of output, from a real table."""

    def __init__(self, folder: Path, truth: Truth, report: FuzzReport) -> None:
        self._folder = folder
        self._truth = truth
        self._report = report
        self.con = truth.con
        lossless(self.con)

    def check(self, kind: SqlType, values: Sequence[Value]) -> None:
        """Store values as SQL, and check that each way of output returns them."""
        self.con.execute(f"CREATE OR REPLACE TABLE o (i INTEGER, c {kind.sql})")
        rows = ", ".join(f"({place}, {value.sql})" for place, value in enumerate(values))
        self.con.execute(f"INSERT INTO o VALUES {rows}")
        stored = [row[0] for row in self.con.execute("SELECT c::VARCHAR FROM o ORDER BY i").fetchall()]
        self._check_some(kind, list(range(len(values))), values, stored)

    def _check_some(
        self, kind: SqlType, places: list[int], values: Sequence[Value], stored: Sequence[str | None]
    ) -> None:
        ways: dict[str, Read] = {
            "json out": self._json,
            "json client": self._json_client,
            "arrow out": self._arrow,
            "python out": self._python,
            "polars out": self._polars,
            "csv out": self._csv,
            "parquet out": self._parquet,
        }
        for way, read in ways.items():
            self._check(way, read, kind, places, values, stored)

    def _check(
        self,
        way: str,
        read: Read,
        kind: SqlType,
        places: list[int],
        values: Sequence[Value],
        stored: Sequence[str | None],
    ) -> None:
        self.con.execute(
            f"CREATE OR REPLACE TEMP VIEW v AS SELECT c FROM o WHERE i IN ({', '.join(map(str, places))}) ORDER BY i"
        )
        try:
            texts = self._truth.texts(kind, read(kind))
        except Exception as e:  # noqa: BLE001 - a crash is a difference too
            if len(places) > 1:
                middle = len(places) // 2
                self._check(way, read, kind, places[:middle], values, stored)
                self._check(way, read, kind, places[middle:], values, stored)
            elif isinstance(e, RequestError) and e.code in _REFUSES and may_refuse(way, kind, values[places[0]]):
                self._report.refuse(way, kind.base)
            else:
                given = values[places[0]].json
                self._report.differ(way, kind.sql, given, stored[places[0]], f"{type(e).__name__}: {e}")
            return
        if len(texts) != len(places):
            self._report.differ(way, kind.sql, "", f"{len(places)} rows", f"{len(texts)} rows")
            return
        for place, found in zip(places, texts, strict=True):
            right = comparable(kind, stored[place])
            self._report.compare(way, kind.sql, kind.base, values[place].json, right, comparable(kind, found))

    def _rows(self) -> pa.Table:
        return fetch_rows(self.con, "SELECT c FROM v", (), LIMITS)

    def _pages(self, form: str) -> list[bytes]:
        return [page.body for page in cut_pages(QueryResult(self._rows(), PAGE_ROWS, form), 100)]

    def _json(self, kind: SqlType) -> list[str]:
        pages = [json.loads(body, parse_float=_Written, parse_int=_Written) for body in self._pages("json")]
        return [nested(kind, _plain(kind, row["c"]), json_sql) for page in pages for row in page["rows"]]

    def _json_client(self, kind: SqlType) -> list[str]:
        rows = join_pages(self._pages("json"), is_arrow=False, where="fuzz").to_json_rows(as_written=True)
        again = json.loads(dump_json(rows), parse_float=_Written, parse_int=_Written)
        return [nested(kind, _plain(kind, row["c"]), json_sql) for row in again]

    def _dataset(self) -> Dataset:
        return join_pages(self._pages("arrow"), is_arrow=True, where="fuzz")

    def _arrow(self, kind: SqlType) -> list[str]:
        return arrow_values(kind, _one(self._dataset().to_arrow()))

    def _python(self, kind: SqlType) -> list[str]:
        return [nested(kind, row["c"], python_sql) for row in self._dataset().rows()]

    def _polars(self, kind: SqlType) -> list[str]:
        frame = self._dataset().to_polars()
        series = frame["c"]
        if series.dtype in (pl.Int128, pl.UInt128):
            return ["NULL" if value is None else f"'{value}'::{kind.sql}" for value in series.to_list()]
        return arrow_values(kind, _one(pa.table(frame.to_arrow())))

    def _csv(self, kind: SqlType) -> list[str]:
        sink = io.StringIO(newline="")
        with contextlib.redirect_stdout(sink):
            print_reply(Output(json=True), self._dataset(), 1, "csv")
        (header, *rows) = read_csv(sink.getvalue())
        assert header == ["c"], header
        return [csv_sql(kind, cell) for (cell,) in rows]

    def _parquet(self, kind: SqlType) -> list[str]:
        schema = Schema((Field("c", parse_dtype(kind.sql)),))
        path = self._folder / "archive.parquet"
        some = f"SELECT {parquet_columns(schema)} FROM v"
        self.con.execute(f"COPY ({some}) TO '{path}' (FORMAT parquet, COMPRESSION zstd)")
        found = self.con.execute(f"SELECT c::{kind.sql}::VARCHAR FROM '{path}'").fetchall()
        return ["NULL" if row[0] is None else OwnText(row[0]) for row in found]


class _Written(str):
    """A number as it is written."""

    __slots__ = ()


def _plain(kind: SqlType, value: Any) -> Any:
    """Return a JSON column's value as text; other values unchanged."""
    if value is None:
        return None
    match kind.base:
        case "JSON":
            return _dumped(value)
        case "LIST" | "ARRAY":
            return [_plain(kind.parts[0], part) for part in value]
        case "STRUCT":
            return {name: _plain(part, value[name]) for name, part in zip(kind.names, kind.parts, strict=True)}
        case "MAP":
            pairs = value.items() if isinstance(value, dict) else value
            return [(_plain(kind.parts[0], key), _plain(kind.parts[1], item)) for key, item in pairs]
        case _:
            return value


def _dumped(value: Any) -> str:
    match value:
        case _Written():
            return str(value)
        case dict():
            return "{" + ",".join(f"{json.dumps(k, ensure_ascii=False)}:{_dumped(v)}" for k, v in value.items()) + "}"
        case list():
            return "[" + ",".join(map(_dumped, value)) + "]"
        case _:
            return json.dumps(value, ensure_ascii=False)


def _one(table: pa.Table) -> pa.Array:
    column = table.column(0).combine_chunks()
    return column.chunk(0) if isinstance(column, pa.ChunkedArray) and column.num_chunks else column


def csv_sql(kind: SqlType, cell: str | None) -> str:
    """Return SQL for a cell of the CLI's CSV: nested values are JSON."""
    if cell is None:
        return "NULL"
    if kind.parts:
        value = json.loads(cell, parse_float=_Written, parse_int=_Written)
        return nested(kind, _plain(kind, value), json_sql)
    if kind.base == "BOOLEAN":
        return f"'{cell}'::BOOLEAN"
    return json_sql(kind, cell) if kind.base != "JSON" else f"{_quoted(cell)}::JSON"


def _quoted(text: str) -> str:
    return f"decode(unhex('{text.encode().hex()}'))"


def read_csv(text: str) -> list[list[str | None]]:
    """Read CSV by RFC 4180; an empty field without quotes is NULL."""
    rows: list[list[str | None]] = [[]]
    place = 0
    while place < len(text):
        if text[place] == '"':
            end = place + 1
            while text[end] != '"' or text[end + 1 : end + 2] == '"':
                end += 2 if text[end] == '"' else 1
            rows[-1].append(text[place + 1 : end].replace('""', '"'))
            place = end + 1
        else:
            end = place
            while text[end] not in ",\n":
                end += 1
            rows[-1].append(text[place:end] or None)
            place = end
        if text[place] == "\n":
            rows.append([])
        place += 1
    return rows[:-1]


def may_refuse(way: str, kind: SqlType, value: Value) -> bool:
    """Return whether a way of output cannot represent a value: an interval over 292 years, a date beyond Polars'."""
    if value.beyond and "INTERVAL" in kind.bases and way != "parquet out":
        return True
    return way == "polars out" and bool(kind.bases & POLARS_LACKS)


POLARS_LACKS = {
    "TIME",
    "DATE",
    "TIMESTAMP",
    "TIMESTAMP_S",
    "TIMESTAMP_MS",
    "TIMESTAMP_NS",
    "TIMESTAMPTZ",
    "HUGEINT",
    "UHUGEINT",
}
