"""A model with lines in a temporary folder, and what tests read of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import pyarrow as pa
from attrs import frozen

from sales_goals import app
from teatree.testing.apps import AppModel, app_model

Leaf = tuple[Any, ...]


@frozen
class PlanModel:
    """The app on some lines."""

    model: AppModel
    dimensions: tuple[str, ...]

    def call(self, name: str, /, **arguments: Any) -> Any:
        """Call a function of the app."""
        return self.model.call(name, **arguments)

    def tables(self) -> tuple[str, ...]:
        """Return the names of the tables."""
        with self.model.transaction() as db:
            return db.tables()

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        return [tuple(row.values()) for row in self.model.sql(sql).rows()]

    def column(self, name: str) -> dict[Leaf, int]:
        """Return the cents of a column of `goals` by leaf."""
        found = self.rows(f"SELECT {', '.join(self.dimensions)}, {name} FROM goals")
        amounts = {tuple(leaf): to_cents(amount) for *leaf, amount in found}
        assert len(amounts) == len(found)
        return amounts

    def locked(self) -> set[Leaf]:
        """Return the locked leaves."""
        return set(self.rows(f"SELECT {', '.join(self.dimensions)} FROM goals WHERE locked"))


@contextmanager
def plan_model(lines: pa.Table, dimensions: tuple[str, ...]) -> Iterator[PlanModel]:
    """Yield a model whose table `lines` has these rows."""
    with app_model(app, tables={"lines": lines}) as model:
        yield PlanModel(model, dimensions)


def to_cents(amount: Decimal) -> int:
    """Return an amount in cents; fails if it has not two decimals."""
    assert amount.as_tuple().exponent == -2, amount
    return int(amount * 100)
