"""Python values as the arguments of a call: JSON, and rows as Arrow, or a refusal that names the place."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import attrs
import polars as pl
import pyarrow as pa
import pytest

from teatree.client.calls.call_arguments import call_arguments
from teatree.client.sending.message import json_body
from teatree.contracts.errors import Code, RequestError
from teatree.datasets.dataset import Dataset


class Level(Enum):
    """A level."""

    HIGH = "high"


@attrs.frozen
class Line:
    """A line."""

    price: Decimal
    days: tuple[date, ...] = ()


def test_python_values_become_json_without_loss() -> None:
    """As the strict converter of the function reads them."""
    given = {
        "amount": Decimal("10.50"),
        "day": date(2011, 12, 1),
        "at": datetime(2011, 12, 1, 10, tzinfo=UTC),
        "level": Level.HIGH,
        "lines": [Line(Decimal(1), (date(2011, 12, 2),))],
        "by_level": {Level.HIGH: 1},
        "id": UUID(int=1),
        "none": None,
        "big": 2**70,
    }
    assert call_arguments(given).members == {
        "amount": "10.50",
        "day": "2011-12-01",
        "at": "2011-12-01T10:00:00Z",
        "level": "high",
        "lines": [{"price": "1", "days": ["2011-12-02"]}],
        "by_level": {"high": 1},
        "id": str(UUID(int=1)),
        "none": None,
        "big": 2**70,
    }
    json_body(call_arguments(given).members)


@pytest.mark.parametrize(
    "rows",
    [pa.table({"a": [1]}), pl.DataFrame({"a": [1]}), Dataset.from_arrow(pa.table({"a": [1]}))],
    ids=["arrow", "polars", "dataset"],
)
def test_one_argument_can_be_rows(rows: Any) -> None:
    """They are the request's body; two are refused before anything is sent."""
    found = call_arguments({"table": "t", "rows_of": rows})
    assert found.rows is rows
    assert found.members == {"table": "t", "rows_of": None}
    with pytest.raises(RequestError, match="'more' are rows; a request carries rows once") as e:
        call_arguments({"rows_of": rows, "more": rows})
    assert e.value.where == "more"


@pytest.mark.parametrize(
    ("value", "where"),
    [
        (object(), "line"),
        ([1, {"a": [object()]}], "line[1].a[0]"),
        ("\ud800", "line"),
        (Line, "line"),
        (print, "line"),
        ({"a": {1: 2, "1": 3}}, "line.a"),
    ],
)
def test_what_has_no_json_form_is_refused_with_its_place(value: Any, where: str) -> None:
    """The message is about the argument."""
    with pytest.raises(RequestError, match=r"^bad_argument: The argument 'line' cannot be sent: ") as e:
        call_arguments({"line": value})
    assert (e.value.code, e.value.where) == (Code.BAD_ARGUMENT, where)


def test_a_value_within_itself_is_refused() -> None:
    """Instead of a recursion without end."""
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(RequestError, match="nested"):
        call_arguments({"line": endless})
