"""Apps: functions by name, what their parameters are filled with, and how they run."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from typing import Annotated, Any, Literal

import pytest
from attrs import frozen

from plain_handles import PlainWrite, run
from teatree import App, Code, Depends, Read, RequestError, Write
from teatree.functions.app.app_function import FunctionKind, HandleKind


@frozen
class BasisPeriod:
    """A half-open period."""

    start: date
    end: date


def test_a_mutation_gets_its_arguments_by_their_hints() -> None:
    """What comes as JSON arrives as the hints name it; what is left out has its default."""
    app = App("sales_goals")

    @app.mutation(labels={"task_type": "plan"}, alone=True, time_ms_max=500)
    def set_goals(db: Write, period: BasisPeriod, kind: Literal["a", "b"], pct: Decimal = Decimal(10)) -> Any:
        """Set goals."""
        return type(db), period, kind, pct

    found = app.functions["set_goals"]
    got = run(found, '{"period": {"start": "2026-01-01", "end": "2026-02-01"}, "kind": "b"}')
    assert got == (PlainWrite, BasisPeriod(date(2026, 1, 1), date(2026, 2, 1)), "b", Decimal(10))
    assert (found.kind, found.handle, found.doc) == (FunctionKind.MUTATION, HandleKind.WRITE, "Set goals.")
    assert (found.labels, found.alone, found.time_ms_max) == ({"task_type": "plan"}, True, 500)
    assert found.signature == ("set_goals(period: BasisPeriod, kind: Literal['a', 'b'], pct: Decimal = Decimal('10'))")
    assert set_goals.__name__ == "set_goals"


def test_a_wrong_value_is_an_error_at_its_path() -> None:
    """The error names where in the arguments the value is."""
    app = App("sales_goals")

    @app.query
    def total(periods: list[BasisPeriod]) -> int:
        return len(periods)

    with pytest.raises(RequestError) as e:
        app.functions["total"].read_arguments({"periods": [{"start": "2026-01-01", "end": "2026-13-01"}]})
    assert (e.value.code, e.value.where) == (Code.TYPE_MISMATCH, "periods[0].end")
    with pytest.raises(RequestError) as e:
        app.functions["total"].read_arguments({"periods": [], "sites": []})
    assert (e.value.code, e.value.where) == (Code.UNKNOWN_ARGUMENT, "sites")
    with pytest.raises(RequestError) as e:
        app.functions["total"].read_arguments({})
    assert (e.value.code, e.value.where) == (Code.MISSING_ARGUMENT, "periods")


def test_a_dependency_is_resolved_once_and_torn_down() -> None:
    """Two that depend on the same share what it yields, which is torn down after the function, also after an error."""
    app = App("sales_goals")
    events: list[str] = []

    def connection(db: Read, site: str) -> Iterator[str]:
        events.append("up")
        try:
            yield f"{type(db).__name__} {site}"
        finally:
            events.append("down")

    def growth(shared: Annotated[str, Depends(connection)], pct: int) -> str:
        return f"{shared} {pct}"

    @app.mutation
    def grow(
        db: Write, shared: Annotated[str, Depends(connection)], g: Annotated[str, Depends(growth)], *, fail: bool
    ) -> str:
        events.append(f"{type(db).__name__}, {shared}, {g}")
        if fail:
            raise ValueError("no")
        return g

    found = app.functions["grow"]
    assert run(found, '{"site": "Graz", "pct": 5, "fail": false}') == "PlainRead Graz 5"
    assert events == ["up", "PlainWrite, PlainRead Graz, PlainRead Graz 5", "down"]
    with pytest.raises(ValueError, match="no"):
        run(found, '{"site": "Graz", "pct": 5, "fail": true}')
    assert events[3:] == events[:3]


def test_an_asynchronous_query_runs_to_its_end() -> None:
    """A query can be a coroutine function."""
    app = App("sales_goals")

    @app.query
    async def double(n: int) -> int:
        return 2 * n

    assert run(app.functions["double"], '{"n": 4}') == 8
