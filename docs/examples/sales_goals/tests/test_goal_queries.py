"""Goals by dimensions, and what was sold beside them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from plan_model import PlanModel, plan_model
from teatree import Dataset, Refused

BASIS, GOAL = date(2020, 5, 1), date(2021, 5, 10)
LINES = (("a", 1, 3), ("a", 2, 1), ("b", 1, 5), (None, 3, 1))


def lines() -> pa.Table:
    """Return the lines of a basis day, and of a day of the goal period on which half as many were sold, and others."""
    rows = [(site, product, 2 * pieces, BASIS) for site, product, pieces in LINES]
    rows += [(site, product, pieces, GOAL) for site, product, pieces in LINES] + [("new", 9, 1, GOAL)]
    return pa.table(
        {
            "site": pa.array([row[0] for row in rows], pa.string()),
            "product": pa.array([row[1] for row in rows], pa.int32()),
            "quantity": pa.array([row[2] for row in rows], pa.int32()),
            "unit_price": pa.array([1.5] * len(rows), pa.float64()),
            "date": pa.array([row[3] for row in rows], pa.date32()),
        }
    )


@pytest.fixture
def model() -> Iterator[PlanModel]:
    """Return goals of May 2021 from May 2020."""
    with plan_model(lines(), ("site", "product")) as model:
        model.call("set_goals", goal_period="2021-05", basis_period="2020-05", pct=Decimal(10))
        yield model


def rows(found: Dataset) -> list[tuple[Any, ...]]:
    """Return rows, with amounts as texts."""
    return [
        tuple(str(value) if isinstance(value, Decimal) else value for value in row.values()) for row in found.rows()
    ]


def test_goals_by_some_dimensions(model: PlanModel) -> None:
    """Sorted, with the number of leaves and locks."""
    model.call("edit_goal", goal_period="2021-05", amount=Decimal("0.00"), leaf={"site": "a", "product": 2})
    assert rows(model.call("goals_by", dimensions=["site"])) == [
        ("a", 2, "12.00", "13.20", 1),
        ("b", 1, "15.00", "16.50", 0),
        (None, 1, "3.00", "3.30", 0),
    ]
    assert [row[:2] for row in rows(model.call("goals_by", dimensions=["product", "site"]))] == [
        *(("a", 1), ("a", 2), ("b", 1), (None, 3))
    ]
    assert rows(model.call("goals_by", dimensions=["site"], page=2)) == []
    assert rows(model.call("locked_goals", goal_period="2021-05")) == [("a", 2, "3.00", "0.00")]


def test_a_page_has_five_hundred_rows() -> None:
    """Each row of the result is on one page."""
    count = 1_203
    table = pa.table(
        {
            "product": pa.array([f"{n:05}" for n in range(count)]),
            "quantity": pa.array([1] * count),
            "unit_price": pa.array([1.0] * count),
            "date": pa.array([BASIS] * count, pa.date32()),
        }
    )
    with plan_model(table, ("product",)) as model:
        model.call("set_goals", goal_period="2021", basis_period="2020", pct=Decimal(0))
        pages = [rows(model.call("goals_by", dimensions=["product"], page=page)) for page in (1, 2, 3)]
    assert [len(page) for page in pages] == [500, 500, 203]
    assert [row[0] for page in pages for row in page] == table.column("product").to_pylist()


def test_a_period_can_be_left_out_while_there_is_one(model: PlanModel) -> None:
    """With a second one it is asked for."""
    model.call("set_goals", goal_period="2021-06", basis_period="2020-05", pct=Decimal(0))
    with pytest.raises(Refused, match="2 periods"):
        model.call("goals_by", dimensions=["site"])
    assert len(rows(model.call("goals_by", dimensions=["site"], goal_period="2021-06"))) == 3


@pytest.mark.parametrize("dimensions", [[], ["customer"]])
def test_dimensions_that_the_data_lacks_are_refused(model: PlanModel, dimensions: list[str]) -> None:
    """And none at all."""
    with pytest.raises(Refused, match="site, product"):
        model.call("goals_by", dimensions=dimensions)


def test_actuals_beside_goals(model: PlanModel) -> None:
    """Also of a site without a goal; `until` is the first day that does not count."""
    expected = [
        ("a", "13.20", "6.00", "7.20"),
        ("b", "16.50", "7.50", "9.00"),
        ("new", "0.00", "1.50", "-1.50"),
        (None, "3.30", "1.50", "1.80"),
    ]
    assert rows(model.call("progress_of", goal_period="2021-05")) == expected
    assert rows(model.call("progress_of", goal_period="2021-05", until=date(2021, 5, 11))) == expected
    before = rows(model.call("progress_of", goal_period="2021-05", until=date(2021, 5, 10)))
    assert [row[2] for row in before] == ["0.00"] * 3
    by_leaf = rows(model.call("progress_of", goal_period="2021-05", dimensions=["site", "product"]))
    assert [row[:2] for row in by_leaf] == [("a", 1), ("a", 2), ("b", 1), ("new", 9), (None, 3)]


def test_unlocking(model: PlanModel) -> None:
    """A leaf, a site with its leaves, all; how many were locked is counted."""
    model.call("edit_goal", goal_period="2021-05", amount=Decimal(1), leaf={"site": "a", "product": 2})
    model.call("edit_goal", goal_period="2021-05", amount=Decimal(20), site="a")
    model.call("edit_goal", goal_period="2021-05", amount=Decimal(30), site="b")
    assert model.call("unlock", goal_period="2021-05", site="a") == 2
    assert model.call("unlock", goal_period="2021-05") == 1
    assert model.call("unlock", goal_period="2021-05") == 0
    assert model.locked() == set()
