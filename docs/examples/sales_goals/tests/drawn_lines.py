"""Sales lines drawn by a seed, as hostile as the arithmetic allows."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
from attrs import frozen

TEXTS = (
    *("", " ", "a", "A", "Z", "z", "ä", "é", "e\u0301", "a,b", 'an "x"', "two\nlines", "NULL", "0", "10", "9"),
    *("\uffee", "\U0001f375", None),  # by code point the second is larger, by UTF-16 the first
)
INTEGERS = (None, 0, -1, 1, 2, 9, 10, 2**31, 2**63 - 1, -(2**63))
PRICES = (
    *(0.0, -0.0, 0.005, 0.015, 0.025, 1.005, 2.675, 0.1 + 0.2, 1 / 3, 2 / 3, 99_999.99, 1_234_567.8),
    *(1.0, 1.0, 1.0, 2.0, 0.01, -0.005, -2.5, 1e-7, 1.5e-7, 5e-324, 1e-300, 1_234_567.891),
)
QUANTITIES = (0, 1, 1, 1, 2, 3, -1, -2, 7, 50, 1_000, -30_000, 74_215)
FIRST = date(2020, 1, 1)
DAYS = 90

_DIMENSION_TYPES = {"text": (pa.string(), TEXTS), "integer": (pa.int64(), INTEGERS)}


@frozen
class Drawn:
    """Lines, and what the app has to find in them."""

    table: pa.Table
    dimensions: tuple[str, ...]
    when: str
    """The column with the moment of a line."""

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The lines."""
        found: list[dict[str, Any]] = self.table.to_pylist()
        return found

    def site_of(self, leaf: tuple[Any, ...]) -> Any:
        """Return the site of a leaf: None for all in data without sites."""
        return leaf[0] if self.dimensions[0] == "site" else None


def draw(seed: int, rows: int = 300) -> Drawn:
    """Return lines: their columns, the columns' types, and how many values each has are drawn, too."""
    dice = random.Random(seed)
    every = ("site", "product", "customer", "salesperson")
    dimensions = tuple(name for name in every if dice.random() < (0.9 if name == "site" else 0.7)) or ("product",)
    columns: dict[str, pa.Array] = {}
    for name in dice.sample(dimensions, len(dimensions)):
        kind, values = _DIMENSION_TYPES[dice.choice(("text", "text", "integer"))]
        some = dice.sample(values, dice.randint(1, len(values)))
        columns[name] = pa.array([dice.choice(some) for _ in range(rows)], kind)
    columns["quantity"] = _quantities(dice, rows)
    columns["unit_price"] = _prices(dice, rows)
    when = dice.choice(("date", "invoiced_at"))
    columns[when] = _moments(dice, rows)
    columns["note"] = pa.array(["x"] * rows)
    return Drawn(pa.table(columns), dimensions, when)


def _quantities(dice: random.Random, rows: int) -> pa.Array:
    some = dice.sample(QUANTITIES, dice.randint(2, len(QUANTITIES)))
    drawn: list[int] = [dice.choice(some) for _ in range(rows)]
    match dice.choice(("int32", "int64", "decimal", "double")):
        case "int32":
            return pa.array(drawn, pa.int32())
        case "int64":
            return pa.array(drawn, pa.int64())
        case "decimal":
            return pa.array(
                [Decimal(q) + dice.choice((Decimal(0), Decimal("0.25"))) for q in drawn], pa.decimal128(15, 2)
            )
        case _:
            return pa.array([q + dice.choice((0.0, 0.5, 0.1)) for q in drawn], pa.float64())


def _prices(dice: random.Random, rows: int) -> pa.Array:
    some: Sequence[float] = dice.sample(PRICES, dice.randint(1, len(PRICES)))
    drawn = [
        dice.choice(some) if dice.random() < 0.9 else round(dice.expovariate(0.1), dice.randint(0, 5))
        for _ in range(rows)
    ]
    match dice.choice(("double", "double", "decimal", "integer")):
        case "double":
            return pa.array(drawn, pa.float64())
        case "decimal":
            return pa.array([Decimal(repr(p)).quantize(Decimal("0.0001")) for p in drawn], pa.decimal128(18, 4))
        case _:
            return pa.array([int(p) for p in drawn], pa.int64())


def _moments(dice: random.Random, rows: int) -> pa.Array:
    days = [FIRST + timedelta(days=dice.randrange(DAYS)) for _ in range(rows)]
    if dice.random() < 0.5:
        return pa.array([None if dice.random() < 0.02 else day for day in days], pa.date32())
    times = [datetime(day.year, day.month, day.day, 23, 59, 59, 999_999) for day in days]
    return pa.array(times, pa.timestamp("us"))


def draw_pct(dice: random.Random) -> Decimal:
    """Return a percentage."""
    some = ("0", "10", "-100", "-150", "12.5", "0.000001", "33.333333", "-33.333333", "1000", "-99.99")
    return Decimal(dice.choice(some))
