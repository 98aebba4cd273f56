"""Arrow columns of one type in columns of another: stored exactly, or refused."""

from __future__ import annotations

import math
import struct
from decimal import Decimal
from fractions import Fraction
from random import Random

import pyarrow as pa
from attrs import evolve

from fuzz.arrays import arrow_array
from fuzz.inward import NUMBERS, Inward
from fuzz.kinds import INTEGERS, UNITS, SqlType, draw_scalar
from fuzz.truth import Truth
from fuzz.values import Value, decimal_text, draw_value
from one_writer import Sent, arrow, arrow_headers

FLOATS = {"FLOAT", "DOUBLE"}
AS_TEXTS = {"VARCHAR", "ENUM", "BIT", "TIMETZ", "UUID", "JSON"}
_FAMILIES = (NUMBERS | FLOATS, NUMBERS | FLOATS, set(UNITS), {*UNITS, "DATE", "TIME", "INTERVAL"})


def draw_pair(rng: Random) -> tuple[SqlType, SqlType]:
    """Return the type that is sent and the type of the column, mostly both numbers or both moments."""
    family = rng.choice(_FAMILIES)
    while True:
        sent, taken = draw_scalar(rng), draw_scalar(rng)
        as_texts = sent.base in AS_TEXTS  # other types read these from text
        if (sent.base in family and taken.base in family) or (rng.random() < 0.01 and not as_texts):
            return sent, taken


def check_foreign(inward: Inward, sent: SqlType, taken: SqlType, rng: Random, count: int) -> None:
    """Check that each value of a type is refused by another type's column, or stored exactly."""
    inward.begin(taken)
    for value in [draw_value(sent, rng, nullable=False) for _ in range(count)]:
        array = arrow_array(sent, [value], rng)
        kind = sent
        if sent.base == "FLOAT" and pa.types.is_float64(array.type):  # as a double it has other digits
            kind, value = SqlType("DOUBLE", "DOUBLE"), evolve(value, json=repr(value.raw))  # noqa: PLW2901
        right = _right(inward.truth, kind, taken, value)
        request = Sent("append", arrow(pa.table({"c": array})), arrow_headers(table="t"))
        inward.check_cast(kind, taken, value, right, request)


def _right(truth: Truth, sent: SqlType, taken: SqlType, value: Value) -> str | None:
    """Return DuckDB's text of a value in another type, None if that type cannot hold it."""
    if sent.base in NUMBERS | FLOATS and taken.base in NUMBERS | FLOATS:
        text = _number(sent, taken, value)
        return None if text is None else truth.cast(taken, [text])[0]
    one = f"({value.sql})::{sent.sql}"
    cast = f"TRY_CAST({one}::VARCHAR AS {taken.sql})"
    back = f"TRY_CAST({cast}::VARCHAR AS {sent.sql})"
    text, exact = truth.con.execute(f"SELECT {cast}::VARCHAR, {back} IS NOT DISTINCT FROM {one}").fetchall()[0]
    return text if exact else None


def _number(sent: SqlType, taken: SqlType, value: Value) -> str | None:
    """Return the number as digits, None if the other type would change it."""
    if sent.base in FLOATS and not math.isfinite(value.raw):
        return str(value.raw) if taken.base in FLOATS else None
    if taken.base in FLOATS:
        return _as_float(sent, taken, value)
    if sent.base in FLOATS and taken.base == "DECIMAL":
        exact = Fraction(Decimal(value.json))  # a float stands for its shortest decimal form
    else:
        exact = Fraction(value.raw) / (10 ** sent.numbers[1] if sent.base == "DECIMAL" else 1)
    if taken.base in INTEGERS:
        low, high = INTEGERS[taken.base]
        return str(exact.numerator) if exact.denominator == 1 and low <= exact <= high else None
    precision, scale = taken.numbers
    scaled = exact * 10**scale
    fits = scaled.denominator == 1 and abs(scaled) < 10**precision
    return decimal_text(scaled.numerator, scale) if fits else None


def _as_float(sent: SqlType, taken: SqlType, value: Value) -> str | None:
    if sent.base == "DECIMAL":
        return decimal_text(value.raw, sent.numbers[1])  # becomes the nearest float
    try:
        near = float(value.raw)
        if taken.base == "FLOAT":
            near = struct.unpack("<f", struct.pack("<f", near))[0]
    except OverflowError:
        return None
    return format(Decimal(near), "f") if near == value.raw else None
