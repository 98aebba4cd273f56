"""What cannot be computed to the cent is refused with what to change; it is never a wrong number."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from plan_model import plan_model
from teatree import Dataset, Refused, RequestError

DAY = pa.array([date(2020, 1, 1)], pa.date32())
SITE = pa.array(["a"])


def lines(**columns: Any) -> pa.Table:
    """Return one line; `quantity` and `unit_price` are 1 unless they are given."""
    one = pa.array([1], pa.int32())
    found = {"site": SITE, "quantity": one, "unit_price": one, "date": DAY, **columns}
    return pa.table({name: values for name, values in found.items() if values is not None})


def set_goals(table: pa.Table, pct: str = "0", **more: Any) -> Decimal:
    """Return the sum of the goals."""
    arguments = {"goal_period": "2021", "basis_period": "2020", "pct": Decimal(pct), **more}
    with plan_model(table, ()) as model:
        try:
            goal = model.call("set_goals", **arguments).goal
        except RequestError:
            assert model.tables() == ("lines",)
            raise
    assert isinstance(goal, Decimal)
    return goal


def doubles(*values: float | None) -> pa.Array:
    """Return a DOUBLE column."""
    return pa.array(values, pa.float64())


TABLES = {
    "no price": (lines(unit_price=doubles(None)), "no quantity or no unit price"),
    "NaN": (lines(unit_price=doubles(float("nan"))), "no quantity or no unit price"),
    "infinity": (lines(quantity=doubles(float("-inf"))), "no quantity or no unit price"),
    "a huge price": (lines(unit_price=doubles(1e300)), "too large"),
    "a huge quantity": (lines(quantity=pa.array([2**63 - 1], pa.int64())), "too large"),
    "a huge amount": (lines(quantity=doubles(9e14), unit_price=doubles(100.0)), "too large"),
    "a sum that is huge": (
        pa.concat_tables([lines(quantity=pa.array([9 * 10**14]), unit_price=pa.array([6]))] * 2),
        "add up",
    ),
    "a fine price": (lines(quantity=pa.array([1000]), unit_price=doubles(1e-4 / 3)), "decimals"),
    "a fine quantity": (lines(quantity=doubles(1 / 3)), "decimals"),
    "no column": (lines(unit_price=None), "no column 'unit_price'"),
    "a price as text": (lines(unit_price=pa.array(["1"])), "not a number"),
    "no date": (lines(date=None), "no column with a date"),
    "two dates": (lines(date=None, sent=DAY, paid=DAY), "2 columns with a date"),
    "a date as text": (lines(date=pa.array(["2020-01-01"]), sent=DAY), "a column 'date' that is a VARCHAR"),
    "no dimension": (lines(site=None), "none of the columns"),
    "a dimension of another type": (lines(site=doubles(1.0)), "not text or an integer"),
    "no lines of the period": (lines(date=pa.array([date(2019, 12, 31)], pa.date32())), "no lines in the basis"),
}


@pytest.mark.parametrize("what", TABLES)
def test_lines_that_are_refused(what: str) -> None:
    """Each with the reason; no table is left."""
    table, reason = TABLES[what]
    with pytest.raises(Refused, match=reason):
        set_goals(table)


def test_a_huge_factor_is_refused_before_anything_overflows() -> None:
    """The goals would not fit into 18 digits."""
    with pytest.raises(Refused, match="add up"):
        set_goals(lines(unit_price=pa.array([10**9])), "999999999")


def test_large_amounts_within_the_limits_are_exact() -> None:
    """Sixteen digits and their cents: more than a DOUBLE holds."""
    price = pa.array([Decimal("89999999999999.99")], pa.decimal128(18, 2))
    assert set_goals(lines(quantity=pa.array([90]), unit_price=price), "11.1") == Decimal("8999099999999999.00")


def test_a_tiny_price_is_nothing() -> None:
    """Whatever its decimals, less than a tenth of a cent is 0.00 beyond doubt."""
    assert set_goals(lines(unit_price=doubles(5e-324))) == 0


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        ({"goal_period": "December"}, "goal_period"),
        ({"goal_period": "2011-13"}, "goal_period"),
        ({"basis_period": "2020-02-01/2020-01-01"}, "basis_period"),
        ({"basis_period": "2020-01-01/2020-01-01"}, "basis_period"),
        ({"basis_period": "2020-W01-1/2020-02-01"}, "basis_period"),
        ({"pct": Decimal("NaN")}, "pct"),
        ({"pct": Decimal("0.0000001")}, "pct"),
        ({"pct": Decimal(10**9)}, "pct"),
        ({"pct_by_site": {"b": Decimal(5)}}, "pct_by_site"),
        ({"pct_by_site": {"a": Decimal("1e-9")}}, "pct_by_site.a"),
    ],
)
def test_arguments_that_are_refused(arguments: dict[str, Any], where: str) -> None:
    """The error names the argument."""
    with pytest.raises(RequestError) as refused:
        set_goals(lines(), **arguments)
    assert refused.value.where == where


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        ({"amount": Decimal("-0.01")}, "amount"),
        ({"amount": Decimal("0.001")}, "amount"),
        ({"amount": Decimal("1e30")}, "amount"),
        ({"amount": Decimal("Infinity")}, "amount"),
        ({"site": None}, "leaf"),
        ({"leaf": {"site": "a", "product": 1}}, "leaf"),
        ({"leaf": {"product": 0}}, "leaf"),
        ({"leaf": {"site": "a", "product": 0, "customer": 1}}, "leaf"),
        ({"leaf": {"site": "a", "product": "0"}, "site": None}, "product"),
        ({"leaf": {"site": "a", "product": 2**40}, "site": None}, "product"),
        ({"site": 1}, "site"),
        ({"site": "b"}, "site"),
        ({"site": "a'; DROP TABLE goals; --"}, "site"),
        ({"goal_period": "2022"}, "site"),
    ],
)
def test_edits_that_are_refused(arguments: dict[str, Any], where: str) -> None:
    """The error names the argument, and no goal changes."""
    with plan_model(lines(product=pa.array([0], pa.int32())), ("site", "product")) as model:
        model.call("set_goals", goal_period="2021", basis_period="2020", pct=Decimal(0))
        with pytest.raises(RequestError) as refused:
            model.call("edit_goal", **{"goal_period": "2021", "amount": Decimal(1), "site": "a", **arguments})
        assert model.column("goal") == {("a", 0): 100}
    assert refused.value.where == where


def test_lines_of_other_dimensions_do_not_mix() -> None:
    """Goals by site stay until their table is dropped."""
    with plan_model(lines(), ("site",)) as model:
        model.call("set_goals", goal_period="2021", basis_period="2020", pct=Decimal(0))
        with model.model.transaction() as db:
            db.drop_table("lines")
            other = Dataset.from_arrow(lines(product=pa.array([1])))
            db.create_table("lines", other.schema)
            db.append("lines", other)
        with pytest.raises(Refused, match="have the dimensions site, the lines site, product"):
            model.call("set_goals", goal_period="2022", basis_period="2020", pct=Decimal(0))
