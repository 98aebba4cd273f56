"""`teatree.testing.apps`: an app is tested without any service."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import polars as pl
import pytest

from teatree import App, Code, Field, OperatorError, Read, RequestError, Schema, Write
from teatree.contracts.types.schema import parse_dtype
from teatree.testing.apps import app_model

app = App("goals", version="1")


@app.mutation
def set_goal(db: Write, site: str, amount: Decimal, day: date | None = None) -> dict[str, Any]:
    """Set a goal."""
    db.upsert("goals", [{"site": site, "amount": amount}])
    return {"site": site, "amount": amount, "day": day}


@app.mutation
def bad(db: Write) -> object:
    """Return what cannot be sent."""
    db.execute("DELETE FROM goals")
    return object()


@app.query
def prices(db: Read) -> Any:
    """Read another model."""
    return db.other("list").table("prices")


GOALS = {"columns": {"site": "VARCHAR", "amount": "DECIMAL(18,2)"}, "primary_key": "site"}


def test_an_app_is_tested_in_a_few_lines() -> None:
    """Tables are given with the model, calls change it, and rows are compared."""
    with app_model(app, {"goals": {**GOALS, "rows": [{"site": "a", "amount": "1.10"}]}}) as model:
        assert model.call("set_goal", site="b", amount=Decimal("2.50"))["amount"] == Decimal("2.50")
        assert model.bind().set_goal(site="a", amount=3, day=date(2026, 1, 2))["day"] == date(2026, 1, 2)
        assert model.call_json("set_goal", '{"site": "c", "amount": 0.1, "day": "2026-01-02"}') == {
            "site": "c",
            "amount": "0.1",
            "day": "2026-01-02",
        }
        assert model.sql("SELECT sum(amount) AS s FROM goals WHERE site < ?", ["c"]).rows() == [{"s": Decimal("5.50")}]
        with pytest.raises(OperatorError) as caught:
            model.call("bad")
        assert caught.value.code is Code.BAD_RESULT
        assert [row["site"] for row in model.rows("goals")] == ["a", "b", "c"]
        with model.transaction() as db:
            set_goal(db, "d", Decimal(1))
        assert len(model.rows("goals")) == 4


def test_tables_have_the_types_of_what_is_given() -> None:
    """A frame's types, those that fit a list of dicts, a schema's; a column whose type is not clear is named."""
    schema = Schema((Field("x", parse_dtype("HUGEINT", "type")),))
    tables = {"frame": pl.DataFrame({"d": [date(2026, 1, 1)]}), "dicts": [{"n": 1, "t": "x"}], "empty": schema}
    with app_model(app, tables, others={"list": {"prices": [{"p": 5}]}}) as model:
        assert model.rows("frame") == [{"d": date(2026, 1, 1)}]
        assert model.rows("dicts") == [{"n": 1, "t": "x"}]
        assert model.rows("empty") == []
        assert model.call("prices").rows() == [{"p": 5}]
        with pytest.raises(RequestError) as caught:
            model.call_json("set_goal", "[1]")
        assert caught.value.code is Code.BAD_ARGUMENT
    with pytest.raises(RequestError) as caught, app_model(app, {"t": [{"d": date(2026, 1, 1)}]}):
        raise AssertionError
    assert (caught.value.where or "").startswith("tables.t[0].d")
