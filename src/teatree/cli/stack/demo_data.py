"""The demo's data: sales by site, product, customer and salesperson, generated deterministically."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

from attrs import define, field

SITES = ("north", "south", "east", "west")
PRODUCTS = 40
CUSTOMERS = 200
SALESPERSONS = 12
DAYS = 60
SALES_PER_DAY = 10
"""Rows of one request: a count that is not a multiple of it shows that a reader saw part of a request."""
VISITS = 20_000
FIRST_DAY = date(2026, 1, 1)
_SEED = 20_260_101

TABLES: tuple[dict[str, Any], ...] = (
    {
        "table": "lines",
        "columns": [
            {"name": "id", "type": "BIGINT"},
            {"name": "date", "type": "DATE"},
            {"name": "site", "type": "VARCHAR"},
            {"name": "product", "type": "INTEGER"},
            {"name": "customer", "type": "INTEGER"},
            {"name": "salesperson", "type": "INTEGER"},
            {"name": "quantity", "type": "INTEGER"},
            {"name": "unit_price", "type": "DECIMAL(9,2)"},
        ],
        "primary_key": ["id"],
    },
    {
        "table": "visits",
        "columns": [{"name": "id", "type": "BIGINT"}, {"name": "customer", "type": "INTEGER"}],
    },
)


@define
class SalesTotals:
    """The sums of all requests that are done: the numbers that the model must hold in the end."""

    version: int = 0
    """The newest version that holds any of them."""
    requests: int = 0
    rows: int = 0
    quantity: int = 0
    cents: int = 0
    visits: int = 0
    visitors: int = 0
    cents_by_site: dict[str, int] = field(factory=lambda: dict.fromkeys(SITES, 0))
    goal_rows: dict[str, int] = field(factory=dict)
    """Rows of the tables that the app made."""

    def saw_version(self, version: int | None) -> None:
        """Note the version of an outcome."""
        self.version = max(self.version, version or 0)

    def add_sales(self, site: str, rows: list[dict[str, Any]]) -> None:
        """Count a day's sales."""
        cents = sum(row["quantity"] * to_cents(row["unit_price"]) for row in rows)
        self.requests += 1
        self.rows += len(rows)
        self.quantity += sum(row["quantity"] for row in rows)
        self.cents += cents
        self.cents_by_site[site] += cents

    def add_visits(self, rows: list[dict[str, Any]]) -> None:
        """Count one-row requests."""
        self.requests += len(rows)
        self.visits += len(rows)
        self.visitors += sum(row["customer"] for row in rows)


def days_of(site: str) -> Iterator[list[dict[str, Any]]]:
    """Yield what a site sells, day by day."""
    place = SITES.index(site)
    dice = random.Random(_SEED + place)  # noqa: S311 - generated sales
    for number in range(DAYS):
        day = FIRST_DAY + timedelta(days=number)
        first = (place * DAYS + number) * SALES_PER_DAY
        yield [_sale(first + k, day, site, dice) for k in range(SALES_PER_DAY)]


def visit_rows() -> Iterator[dict[str, Any]]:
    """Yield the rows that are sent in bulk, one per request."""
    dice = random.Random(_SEED)  # noqa: S311 - generated visits
    for number in range(VISITS):
        yield {"id": number, "customer": dice.randrange(CUSTOMERS)}


def _sale(number: int, day: date, site: str, dice: random.Random) -> dict[str, Any]:
    return {
        "id": number,
        "date": day.isoformat(),
        "site": site,
        "product": dice.randrange(PRODUCTS),
        "customer": dice.randrange(CUSTOMERS),
        "salesperson": dice.randrange(SALESPERSONS),
        "quantity": dice.randint(1, 20),
        "unit_price": to_text(dice.randint(99, 9_999)),
    }


def to_cents(amount: str) -> int:
    """Return an amount in cents."""
    return int(amount.replace(".", ""))


def to_text(cents: int) -> str:
    """Return an amount of cents as a decimal number."""
    return f"{cents // 100}.{cents % 100:02}"
