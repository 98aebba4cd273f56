"""Goals are those of plain Python with exact fractions, leaf by leaf, to the cent."""

from __future__ import annotations

import os
import random
from datetime import date
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import goals_oracle
from drawn_lines import Drawn, draw, draw_pct
from plan_model import plan_model

START, END = date(2020, 1, 10), date(2020, 3, 1)


def check_goals(lines: Drawn, basis: tuple[date, date], pct: Decimal, pct_by_site: dict[str, Decimal]) -> None:
    """Compare all goals with the oracle's."""
    expected_basis = goals_oracle.basis_by_leaf(lines.rows, lines.dimensions, lines.when, *basis)
    expected = goals_oracle.set_goals(expected_basis, lines.site_of, pct, pct_by_site)
    with plan_model(lines.table, lines.dimensions) as model:
        found = model.call(
            "set_goals", goal_period="2021", basis_period="/".join(map(str, basis)), pct=pct, pct_by_site=pct_by_site
        )
        assert model.column("basis") == expected.basis
        assert model.column("goal") == expected.goal
    assert set(found.without_goal) == expected.without_goal
    assert len(found.without_goal) == found.sites_without_goal == len(expected.without_goal)
    assert found.leaves == len(expected_basis)
    assert found.sites == len({lines.site_of(leaf) for leaf in expected_basis})
    assert found.basis == Decimal(sum(expected.basis.values())).scaleb(-2)
    assert found.goal == Decimal(sum(expected.goal.values())).scaleb(-2)


@pytest.mark.parametrize("seed", range(12))
def test_goals_of_hostile_lines(seed: int) -> None:
    """Negative quantities, NULLs, ties, odd texts, tiny prices, sites without a positive leaf, goals below zero."""
    lines, dice = draw(seed), random.Random(seed)
    sites = {str(row["site"]) for row in lines.rows if row.get("site") is not None and in_basis(row[lines.when])}
    pct_by_site = {site: draw_pct(dice) for site in sorted(sites) if dice.random() < 0.3}
    check_goals(lines, (START, END), draw_pct(dice), pct_by_site)


def in_basis(moment: date | None) -> bool:
    """Return whether a moment is in the basis period."""
    return goals_oracle.in_period(moment, START, END)


@pytest.mark.skipif("SALES_LINES" not in os.environ, reason="SALES_LINES names no Parquet file of sales lines")
def test_goals_of_real_lines() -> None:
    """A file with site, product, customer, quantity, unit_price and invoiced_at."""
    table = pq.read_table(Path(os.environ["SALES_LINES"]))
    lines = Drawn(table, ("site", "product", "customer"), "invoiced_at")
    check_goals(lines, (date(2010, 12, 1), date(2011, 3, 1)), Decimal(10), {"Germany": Decimal(25)})


def lines_of(*lines: tuple[str | None, int, float], day: date = START) -> pa.Table:
    """Return lines of site, quantity and price; the product is the line's place."""
    return pa.table(
        {
            "site": pa.array([site for site, _, _ in lines], pa.string()),
            "product": pa.array(range(len(lines)), pa.int32()),
            "quantity": pa.array([quantity for _, quantity, _ in lines], pa.int32()),
            "unit_price": pa.array([price for _, _, price in lines], pa.float64()),
            "date": pa.array([day] * len(lines), pa.date32()),
        }
    )


def goals_of(table: pa.Table, pct: str = "0") -> list[int]:
    """Return the cents of each product."""
    with plan_model(table, ("product",)) as model:
        model.call("set_goals", goal_period="2021", basis_period="2020", pct=Decimal(pct))
        found = model.column("goal")
    return [found[product,] for product in range(len(found))]


def test_a_line_is_rounded_half_away_from_zero_as_its_shortest_text() -> None:
    """1.005 is a little less in binary, and 101 cents all the same."""
    prices = (0.005, 0.015, 1.005, 2.675, 0.1 + 0.2)
    with plan_model(lines_of(*(("a", 1, price) for price in prices)), ("product",)) as model:
        model.call("set_goals", goal_period="2021", basis_period="2020", pct=Decimal(0))
        basis = model.column("basis")
    assert [basis[product,] for product in range(len(prices))] == [1, 2, 101, 268, 30]


def test_each_line_is_rounded_before_they_are_added() -> None:
    """Three times half a cent are three cents."""
    table = lines_of(*[("a", 1, 0.005)] * 3).set_column(1, "product", pa.array([0, 0, 0], pa.int32()))
    assert goals_of(table) == [3]


def test_cents_left_over_go_to_the_largest_remainders() -> None:
    """Of 100.1 percent of 10.00, 3.00 and 7.00 get 3.00 and 7.01, by remainders of 0.3 and 0.7."""
    assert goals_of(lines_of(("a", 3, 1.0), ("a", 7, 1.0)), "0.1") == [300, 701]


def test_equal_remainders_are_ordered_by_leaf() -> None:
    """Two of the three cents' places: the smallest leaves."""
    assert goals_of(lines_of(("a", 1, 0.01), ("a", 1, 0.01), ("a", 1, 0.01)), "66.666666") == [2, 2, 1]


def test_null_is_the_last_leaf() -> None:
    """The one cent left over goes to the leaf with a product."""
    table = lines_of(("a", 1, 0.01), ("a", 1, 0.01)).set_column(1, "product", pa.array([None, 5], pa.int32()))
    with plan_model(table, ("product",)) as model:
        model.call("set_goals", goal_period="2021", basis_period="2020", pct=Decimal(50))
        assert model.column("goal") == {(5,): 2, (None,): 1}


def test_a_negative_leaf_lowers_its_sites_goal() -> None:
    """The site's goal is that of all its lines, and the positive leaves get all of it."""
    assert goals_of(lines_of(("a", 10, 1.0), ("a", -4, 1.0)), "50") == [900, 0]


def test_sites_without_a_goal_are_named() -> None:
    """One has no positive leaf, another a goal below zero, a third one loses more than it had."""
    table = lines_of(("none", 0, 1.0), ("below", 1, 1.0), ("below", -2, 1.0), (None, 5, 1.0), ("good", 1, 1.0))
    with plan_model(table, ("site", "product")) as model:
        found = model.call("set_goals", goal_period="2021", basis_period="2020", pct=Decimal(0))
        assert found.without_goal == ["below", "none"]
        assert found.goal == Decimal("6.00")
        lower = model.call(
            "set_goals", goal_period="2021", basis_period="2020", pct=Decimal(0), pct_by_site={"good": Decimal(-200)}
        )
        assert lower.without_goal == ["below", "good", "none"]


def test_goals_of_a_period_are_replaced_and_others_stay() -> None:
    """Also with their locks."""
    with plan_model(lines_of(("a", 1, 1.0), ("a", 2, 1.0)), ("product",)) as model:
        for period, pct in (("2021", 0), ("2022", 100), ("2021-01-01/2022-01-01", 200)):
            model.call("set_goals", goal_period=period, basis_period="2020", pct=Decimal(pct))
        found = model.rows("SELECT goal_period, sum(goal)::VARCHAR FROM goals GROUP BY ALL ORDER BY ALL")
    assert found == [("2021", "9.00"), ("2022", "6.00")]
