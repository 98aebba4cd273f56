"""Converters of input: `append` of JSON rows and Arrow tables, `load` of Parquet, Arrow and CSV files."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fuzz.arrays import arrow_array
from fuzz.kinds import INTEGERS, SqlType
from fuzz.readback import interval
from fuzz.report import FuzzReport
from fuzz.texts import MOMENTS, as_duckdb
from fuzz.truth import Truth, comparable
from fuzz.values import Value, iso_interval
from one_writer import Sent, arrow, arrow_headers
from teatree.client.sending.message import json_body
from teatree.contracts.errors import RequestError
from teatree.contracts.formats.requests import read_request
from teatree.contracts.names import new_id
from teatree.contracts.settings import LimitSettings, StoreSettings
from teatree.engine.duckdb.database import Database
from teatree.engine.duckdb.handle import WriteHandle
from teatree.functions.arguments import Call, CallContext
from teatree.functions.registry import built_in_functions
from teatree.functions.sources import Sources

LIMITS = LimitSettings()
ROUNDS_OF_A_FILE = 300
"""Rounds after which the model's file is replaced by a new one: it is never checkpointed."""
_AT = datetime(2026, 1, 1, tzinfo=UTC)
_JSON_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_DURATION = re.compile(
    r"([+-]?)P(?:([+-]?\d+)Y)?(?:([+-]?\d+)M)?(?:([+-]?\d+)W)?(?:([+-]?\d+)D)?"
    r"(?:T(?:([+-]?\d+)H)?(?:([+-]?\d+)M)?(?:([+-]?)(\d+)(?:[.,](\d+))?S)?)?"
)
Insert = Callable[[Sequence[Value]], Sent]


class UnwritableError(Exception):
    """PyArrow cannot write this as Parquet without change."""


class Inward:
    """The ways of input, and a model's file that stores the values."""

    def __init__(self, folder: Path, truth: Truth, report: FuzzReport) -> None:
        self._folder = folder
        self._functions = built_in_functions()
        self.truth = truth
        self._report = report
        self._context = CallContext(LIMITS, Sources((str(folder),), StoreSettings()))
        self._rounds = 0
        self._open()

    def _open(self) -> None:
        self._database = Database(self._folder / f"model-{self._rounds}.duckdb", LIMITS)
        self._handle = WriteHandle(self._database, LIMITS)

    def close(self) -> None:
        """Close the model's file."""
        self._database.close()

    def begin(self, kind: SqlType) -> None:
        """Make a table of one column."""
        self._rounds += 1
        if self._rounds % ROUNDS_OF_A_FILE == 0:
            self.close()
            self._database.path.unlink()
            self._open()
        self._database.rows(f"CREATE OR REPLACE TABLE t (i INTEGER, c {kind.sql})")
        self._handle.forget()

    def stored(self, sent: Sent) -> list[str | None]:
        """Apply a request to the empty table; return DuckDB's text of every row, or raise what the request raises."""
        self._database.rows("DELETE FROM t")
        headers = {"Teatree-Request-Id": new_id(), **sent.headers}
        body = sent.body if isinstance(sent.body, bytes) else json.dumps(sent.body).encode()
        call = Call(read_request("m", sent.function, 1, _AT, headers, body), self._context)
        self._functions.require(sent.function).run(self._handle, call)
        return [row[0] for row in self._database.rows("SELECT c::VARCHAR FROM t")]

    # --- values that must be accepted ---

    def check(self, kind: SqlType, values: Sequence[Value], rng: Random) -> None:
        """Check that each way of input accepts all values of a type, and stores them exactly."""
        self.begin(kind)
        expected = self.truth.texts(kind, [value.sql for value in values])
        ways: dict[str, Insert] = {
            "json in": lambda some: json_rows([value.json for value in some]),
            "python in": lambda some: Sent("append", _client_body(some)),
            "arrow in": lambda some: Sent("append", arrow(_table(kind, some, rng)), arrow_headers(table="t")),
            "arrow file in": lambda some: self._file("rows.arrow", arrow(_table(kind, some, rng))),
            "csv in": lambda some: self._csv([csv_cell(kind, value) for value in some]),
            "parquet in": lambda some: self._parquet(_table(kind, some, rng)),
        }
        for way, insert in ways.items():
            self._check(way, kind, values, expected, insert)

    def _check(
        self, way: str, kind: SqlType, values: Sequence[Value], expected: Sequence[str | None], insert: Insert
    ) -> None:
        try:
            found = self.stored(insert(values))
        except UnwritableError:
            return
        except Exception as e:  # noqa: BLE001 - a crash is a difference too
            if len(values) > 1:
                middle = len(values) // 2
                self._check(way, kind, values[:middle], expected[:middle], insert)
                self._check(way, kind, values[middle:], expected[middle:], insert)
            elif isinstance(e, RequestError) and may_refuse(way, values[0]):
                self._report.refuse(way, kind.base)
            else:
                what = "refused" if isinstance(e, RequestError) else type(e).__name__
                self._report.differ(way, kind.sql, values[0].json, expected[0], f"{what}: {e}")
            return
        if len(found) != len(values):
            self._report.differ(way, kind.sql, "", f"{len(values)} rows", f"{len(found)} rows")
            return
        for value, right, here in zip(values, expected, found, strict=True):
            self._report.compare(way, kind.sql, kind.base, value.json, comparable(kind, right), comparable(kind, here))

    def _file(self, name: str, body: bytes, **options: Any) -> Sent:
        path = self._folder / name
        path.write_bytes(body)
        return Sent("load", {"table": "t", "uri": str(path), **options})

    def _csv(self, cells: Sequence[str]) -> Sent:
        rows = "".join(f"{place},{cell}\n" for place, cell in enumerate(cells))
        return self._file("rows.csv", f"i,c\n{rows}".encode())

    def _parquet(self, table: pa.Table) -> Sent:
        path = self._folder / "rows.parquet"
        try:
            pq.write_table(table, path)
            same = pq.read_table(path).column(0).combine_chunks().equals(table.column(0).combine_chunks())
        except (pa.ArrowException, ValueError, TypeError):
            same = False
        if not same:
            raise UnwritableError
        return Sent("load", {"table": "t", "uri": str(path)})

    # --- texts that may be refused ---

    def check_texts(self, kind: SqlType, texts: Sequence[str]) -> None:
        """Check that each text is refused, or stored as DuckDB's own cast of it, without loss."""
        self.begin(kind)
        known = self.truth.cast(kind, as_duckdb(kind, texts))
        stripped = texts if kind.base in ("VARCHAR", "ENUM") else [text.strip() for text in texts]
        cells = self.truth.cast(kind, as_duckdb(kind, stripped))
        for text, own, of_cell in zip(texts, known, cells, strict=True):
            notation = json.dumps(text)
            self._check_text("json texts", kind, text, self._of_json_text(kind, text, own), json_rows([notation]))
            if _JSON_NUMBER.fullmatch(text) and kind.base != "JSON":
                self._check_text("json numbers", kind, text, own, json_rows([text]))
            if text.strip() or kind.base in ("VARCHAR", "ENUM"):
                right = of_cell if kind.base == "JSON" else self._of_json_text(kind, text.strip(), of_cell)
                self._check_text("csv texts", kind, text, right, self._csv([quoted_cell(text)]))
            if kind.base in _ARROW_TEXTS:
                table = pa.table({"c": pa.array([text], pa.string())})
                sent = Sent("append", arrow(table), arrow_headers(table="t"))
                self._check_text("arrow texts", kind, text, own, sent)

    def check_cast(self, sent: SqlType, taken: SqlType, value: Value, right: str | None, request: Sent) -> None:
        """Check that a value of one type is refused by another's column, or stored exactly."""
        kind = f"{sent.sql} into {taken.sql}"
        try:
            (found,) = self.stored(request)
        except RequestError:
            self._report.refuse("arrow cast", taken.base)
        except Exception as e:  # noqa: BLE001 - a crash is a difference too
            self._report.differ("arrow cast", kind, value.sql, right, f"{type(e).__name__}: {e}")
        else:
            pair = comparable(taken, right), comparable(taken, found)
            self._report.compare("arrow cast", kind, taken.base, value.sql, *pair)

    def _of_json_text(self, kind: SqlType, text: str, own: str | None) -> str | None:
        match kind.base:
            case "JSON":
                return json.dumps(text)
            case "BLOB":
                try:
                    return self.truth.texts(kind, [f"unhex('{base64.b64decode(text, validate=True).hex()}')"])[0]
                except (binascii.Error, ValueError):
                    return None
            case "INTERVAL":
                sql = _iso_interval(text)
                return None if sql is None else self.truth.texts(kind, [sql])[0]
            case _:
                return own

    def _check_text(self, way: str, kind: SqlType, text: str, right: str | None, sent: Sent) -> None:
        try:
            (found,) = self.stored(sent)
        except RequestError:
            self._report.refuse(way, kind.base)
            return
        except Exception as e:  # noqa: BLE001 - a crash is a difference too
            self._report.differ(way, kind.sql, repr(text), right, f"{type(e).__name__}: {e}")
            return
        lossy = found is not None and is_lossy(kind, text, found)
        if right is None and kind.base in NUMBERS and not lossy:
            right = found  # DuckDB has no -0.0 in a UHUGEINT
        self._report.compare(way, kind.sql, kind.base, repr(text), comparable(kind, right), comparable(kind, found))
        if lossy:
            self._report.differ(way, kind.sql, repr(text), "refused, since digits are lost", found)


NUMBERS = {*INTEGERS, "DECIMAL"}
_ARROW_TEXTS = {"VARCHAR", "ENUM", "JSON", "UUID", "HUGEINT", "UHUGEINT", "BIT", "TIMETZ"}


def is_lossy(kind: SqlType, text: str, found: str) -> bool:
    """Return whether a number or a moment lost digits."""
    if kind.base in NUMBERS:
        return Decimal(text.strip().replace("_", "")) != Decimal(found)
    if kind.base in MOMENTS:
        return _fraction(text) != _fraction(found)
    return False


def _fraction(text: str) -> str:
    found = re.search(r"[0-9][.,]([0-9]+)", text)
    return found[1].rstrip("0") if found else ""


def _iso_interval(text: str) -> str | None:
    found = _DURATION.fullmatch(text)
    if found is None or not text[-1].isupper() or text[-1] in "PT":
        return None
    sign, years, months, weeks, days, hours, minutes, second_sign, seconds, fraction = found.groups()
    digits = (fraction or "").ljust(6, "0")
    if digits[6:].strip("0"):
        return None
    micros = int(seconds or 0) * 10**6 + int(digits[:6])
    micros = -micros if second_sign == "-" else micros
    micros += (int(hours or 0) * 3600 + int(minutes or 0) * 60) * 10**6
    flip = -1 if sign == "-" else 1
    months_all, days_all = int(years or 0) * 12 + int(months or 0), int(weeks or 0) * 7 + int(days or 0)
    if max(abs(months_all), abs(days_all)) >= 2**31 or abs(micros) >= 2**63:
        return None
    return interval(flip * months_all, flip * days_all, flip * micros)


def may_refuse(way: str, value: Value) -> bool:
    """Return whether a way of input cannot represent a value."""
    if way == "csv in":
        return value.beyond or "\\u0000" in value.json or "\0" in value.json
    return way != "json in" and value.beyond


def csv_cell(kind: SqlType, value: Value) -> str:
    """Return a value as a cell of CSV: its JSON, or the text itself."""
    if value.raw is None:
        return ""
    if kind.base == "INTERVAL":
        return iso_interval(*value.raw)
    text = value.json if kind.base == "JSON" else json.loads(value.json, parse_float=str, parse_int=str)
    return quoted_cell(text if isinstance(text, str) else value.json)


def quoted_cell(text: str) -> str:
    """Return a text in quotes."""
    return '"' + text.replace('"', '""') + '"'


def _table(kind: SqlType, values: Sequence[Value], rng: Random) -> pa.Table:
    return pa.table({"c": arrow_array(kind, list(values), rng)})


def _client_body(values: Sequence[Value]) -> bytes:
    """Return an `append` as the Python client writes it, of rows of Python's values."""
    rows = [{"c": json.loads(value.json, parse_float=Decimal, parse_int=_whole)} for value in values]
    return json_body({"table": "t", "rows": rows})


def _whole(text: str) -> int | float:
    return -0.0 if text == "-0" else int(text)


def json_rows(texts: Sequence[str]) -> Sent:
    """Return an `append` of rows of one column, each given as JSON."""
    rows = ", ".join(f'{{"c": {text}}}' for text in texts)
    return Sent("append", f'{{"table": "t", "rows": [{rows}]}}'.encode())
