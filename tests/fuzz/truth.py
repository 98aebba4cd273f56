"""DuckDB's text of values, with which every converter is compared."""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa

from fuzz.kinds import SqlType

EXPRESSIONS_MAX = 60
"""Expressions in one SELECT."""


class OwnText(str):
    """Text as DuckDB writes it, in place of SQL."""

    __slots__ = ()


class Truth:
    """A separate DuckDB, in UTC."""

    def __init__(self) -> None:
        self.con = duckdb.connect()
        self.con.execute("SET TimeZone = 'UTC'")
        self.con.execute("SET threads = 1")

    def texts(self, kind: SqlType, expressions: Sequence[str]) -> list[str | None]:
        """Return DuckDB's text of each expression as a value of a type."""
        found: list[str | None] = []
        if any(isinstance(sql, OwnText) for sql in expressions):
            return [str(sql) if isinstance(sql, OwnText) else None for sql in expressions]
        for start in range(0, len(expressions), EXPRESSIONS_MAX):
            some = expressions[start : start + EXPRESSIONS_MAX]
            found += self.con.execute(
                f"SELECT {', '.join(f'({sql})::{kind.sql}::VARCHAR' for sql in some)}"
            ).fetchall()[0]
        return found

    def cast(self, kind: SqlType, texts: Sequence[str]) -> list[str | None]:
        """Return DuckDB's text of each text's cast to a type, None where it refuses."""
        self.con.register("texts", pa.table({"x": pa.array(texts, pa.string())}))
        try:
            return [
                row[0] for row in self.con.execute(f"SELECT TRY_CAST(x AS {kind.sql})::VARCHAR FROM texts").fetchall()
            ]
        finally:
            self.con.unregister("texts")


def comparable(kind: SqlType, text: str | None) -> Any:
    """Return a form in which two texts of one value are equal: JSON without its spaces and escapes."""
    if kind.base == "JSON" and text is not None:
        return _json(text)
    return "nan" if text == "-nan" and kind.base in ("FLOAT", "DOUBLE") else text


def _json(text: str) -> Any:
    try:
        return json.loads(
            text, parse_float=_Number, parse_int=_Number, object_pairs_hook=lambda pairs: ("object", pairs)
        )
    except ValueError:
        return text


class _Number(str):
    """A number's text, equal to every other text of the same number."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return (isinstance(other, _Number) and Decimal(self).compare_total(Decimal(other)) == 0) or (
            isinstance(other, _Number) and Decimal(str(self)) == Decimal(str(other))
        )

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None  # type: ignore[assignment]
