"""Apps: functions by name, what their parameters are filled with, and how they run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date
from decimal import Decimal
from enum import Enum
from functools import wraps
from typing import Annotated, Any, Literal

import polars as pl
import pyarrow as pa
import pytest
from attrs import field, frozen

from event_logs import captured_events
from plain_handles import CONTEXT, PlainWrite, run
from teatree import App, Code, Context, Dataset, Depends, Read, Refused, RequestError, Write
from teatree.client.notice import named_error
from teatree.contracts.formats.codec import dump_json
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
    assert found.signature == ("set_goals(period: BasisPeriod, kind: Literal['a', 'b'], pct: Decimal = '10')")
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


def test_a_context_is_the_same_for_the_same_request() -> None:
    """A replay draws the same numbers; another request, or another model, others."""

    def draw(request_id: str, model: str) -> float:
        return Context(request_id, CONTEXT.at, model, "f").random.random()

    assert draw("r-1", "sales") == draw("r-1", "sales")
    assert len({draw("r-1", "sales"), draw("r-2", "sales"), draw("r-1", "stock")}) == 3
    numbers = Context("r-1", CONTEXT.at, "sales", "f")
    assert numbers.random.random() != numbers.random.random()


def test_a_context_reports_progress_and_logs() -> None:
    """Progress lies between 0 and 1; a line of the log names the request, and has what the function adds."""
    reported: list[tuple[float, str]] = []
    context = Context("r-1", CONTEXT.at, "sales", "spread", lambda fraction, text: reported.append((fraction, text)))
    context.progress(0.4, "spreading")
    context.progress(7)
    context.progress(float("nan"), "\ud800")
    assert reported == [(0.4, "spreading"), (1.0, ""), (0.0, "\\ud800")]
    with captured_events() as logs:
        context.logger.warning("spread %d leaves", 3, extra={"site": "Graz", "message": "m"})  # noqa: G101  it is
    (line,) = logs
    found = {name: line[name] for name in ("event", "model", "function", "request_id", "site")}
    assert found == {
        "event": "spread 3 leaves",
        "model": "sales",
        "function": "spread",
        "request_id": "r-1",
        "site": "Graz",
    }


def test_rows_come_as_a_body_in_arrow() -> None:
    """The body is the value of the function's one Dataset, also of a dependency's; others take none."""
    app = App("orders")

    def rows(lines: Dataset) -> int:
        return len(lines)

    @app.query
    def count(n: Annotated[int, Depends(rows)], more: int = 0) -> int:
        return n + more

    @app.query
    def none() -> int:
        return 0

    body = pa.table({"a": [1, 2, 3]})
    found = app.functions["count"]
    assert found.run(found.read_arguments({"more": 2}, body), None, CONTEXT) == 5
    with pytest.raises(RequestError) as e:
        found.read_arguments({"lines": []}, body)
    assert (e.value.code, e.value.where) == (Code.BAD_ARGUMENT, "lines")
    with pytest.raises(RequestError) as e:
        app.functions["none"].read_arguments({}, body)
    assert e.value.code == Code.BAD_CONTENT_TYPE


class Direction(Enum):
    """An enum."""

    UP = "up"


@frozen
class Leaf:
    """A class within itself."""

    name: Annotated[str, "its name"]
    below: list[Leaf] = field(factory=list)


def described_app() -> App:
    """Return an app with a function that has parameters of all kinds."""
    app = App("orders")

    def growth(pct: Annotated[Decimal, "percent"] = Decimal("1.5")) -> Decimal:
        return pct

    @app.query(labels={"team": "sales"}, page_size=5)
    def spread(
        db: Read,
        g: Annotated[Decimal, Depends(growth)],
        leaf: Leaf,
        by_day: dict[date, list[int]],
        pairs: dict[tuple[int, int], bool],
        sites: set[str] | None = None,
        way: Direction = Direction.UP,
    ) -> dict[str, Leaf]:
        """Spread it.

        Over all.
        """
        return {}

    return app


def test_a_function_describes_itself() -> None:
    """Its signature, docs, labels and parameters, without what a request does not give."""
    found = described_app().functions["spread"].describe()
    assert found["signature"] == (
        "spread(leaf: Leaf, by_day: dict[date, list[int]], pairs: dict[tuple[int, int], bool],"
        " sites: set[str] | None = None, way: Direction = 'up', pct: Decimal = '1.5') -> dict[str, Leaf]"
    )
    assert (found["kind"], found["handle"], found["labels"]) == ("query", "read", {"team": "sales"})
    assert found["doc"] == "Spread it.\n\nOver all."
    assert found["parameters"][-1] == {
        "name": "pct",
        "type": "Decimal",
        "required": False,
        "default": "1.5",
        "doc": "percent",
    }
    assert dump_json(found)


def test_a_request_has_a_json_schema() -> None:
    """Other languages see the members, their types, and classes by name."""
    schema = described_app().functions["spread"].json_schema()
    assert (schema["required"], schema["additionalProperties"]) == (["leaf", "by_day", "pairs"], False)
    properties = schema["properties"]
    assert properties["leaf"] == {"$ref": "#/$defs/Leaf"}
    assert properties["by_day"]["additionalProperties"] == {"type": "array", "items": {"type": "integer"}}
    assert properties["pairs"]["items"]["prefixItems"][1] == {"type": "boolean"}
    assert properties["sites"]["anyOf"][0] == {"type": "array", "items": {"type": "string"}, "uniqueItems": True}
    assert properties["way"] == {"enum": ["up"], "default": "up"}
    assert properties["pct"]["description"] == "percent"
    leaf = schema["$defs"]["Leaf"]
    assert leaf["properties"]["below"] == {"type": "array", "items": {"$ref": "#/$defs/Leaf"}}
    assert leaf["properties"]["name"] == {"type": "string", "description": "its name"}
    assert dump_json(schema)


def test_a_result_is_read_back_by_its_hint() -> None:
    """What came as JSON is what the function returned; what has no hint stays as it is."""
    app = App("orders")

    @app.query
    def leaves() -> dict[date, Leaf]:
        return {}

    @app.query
    def frame() -> pl.DataFrame:
        return pl.DataFrame()

    found = app.functions["leaves"].read_result({"2026-01-01": {"name": "a"}})
    assert found == {date(2026, 1, 1): Leaf("a")}
    with pytest.raises(RequestError) as e:
        app.functions["leaves"].read_result({"2026-01-01": {"name": 1}})
    assert e.value.where == "result.2026-01-01.name"
    assert app.functions["frame"].read_result([1]) == [1]


def test_versions_of_apps() -> None:
    """An app has the version that it is given, or that of the distribution that installs it; else none."""
    assert App("orders", version="1.2").version == "1.2"
    assert App("no_such_app").version == "0"


def test_a_default_is_new_for_each_call() -> None:
    """What a function does to a list that it was given by default is not seen by the next call: it may be a replay."""
    app = App("orders")

    @app.query
    def seen(sites: list[str] = []) -> int:  # noqa: B006  what people write
        sites.append("Graz")
        return len(sites)

    assert [run(app.functions["seen"], "{}") for _ in range(2)] == [1, 1]


def test_a_decorated_coroutine_function_is_awaited() -> None:
    """A wrapper that returns what a coroutine function returned is asynchronous, too."""
    app = App("orders")

    def logged(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return wrapper

    @app.query
    @logged
    async def double(n: int) -> int:
        return 2 * n

    assert run(app.functions["double"], '{"n": 4}') == 8


def test_a_refusal_is_the_same_error_for_the_sender() -> None:
    """What a function raises to refuse a request is what a client raises, and what library mode raises."""
    refusal = Refused("The locked goals exceed the site's.", where="amount", hint="Unlock one.")
    found = named_error(refusal.to_dict(), RequestError)
    assert isinstance(found, Refused)
    assert (found.code, found.where) == (Code.REFUSED, "amount")
    assert found.message == "The locked goals exceed the site's. Unlock one."
