"""What is wrong with a function is a clear error when it is registered, with its name and place."""

# ruff: noqa: D103 - each function's name is its fault

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Annotated, Any

import pytest
from attrs import frozen

from teatree import App, Code, Context, Dataset, Depends, OperatorError, Read, Write


def refused(register: Callable[[App], Any]) -> OperatorError:
    """Return the error with which an app refuses a function."""
    with pytest.raises(OperatorError) as e:
        register(App("sales_goals"))
    assert e.value.code == Code.BAD_APP
    return e.value


def with_args(db: Write, *sites: str) -> None: ...


def with_kwargs(db: Write, **sites: str) -> None: ...


def positional(db: Write, site: str, /) -> None: ...


def unhinted(db: Write, site) -> None: ...  # type: ignore[no-untyped-def]  # noqa: ANN001


def reserved(db: Read, page_size: int) -> None: ...


def handles_in_list(dbs: list[Read]) -> None: ...


def optional_handle(db: Read | None) -> None: ...


def context_in_dict(contexts: dict[str, Context]) -> None: ...


def handle_with_default(db: Read = None) -> None: ...  # type: ignore[assignment]


def unsupported(db: Write, at: list[complex]) -> None: ...


def ambiguous(db: Write, at: dict[str, list[int] | list[str]]) -> None: ...


def two_datasets(one: Dataset, other: Dataset) -> None: ...


def dataset_in_list(rows: list[Dataset]) -> None: ...


def bad_default(n: int = "x") -> None: ...  # type: ignore[assignment]


def no_default(n: int = None) -> None: ...  # type: ignore[assignment]  # noqa: RUF013


def yields(db: Read) -> Iterator[int]:
    yield 1


async def asynchronous(db: Read) -> int:
    return 1


async def async_generator(db: Read) -> AsyncIterator[int]:
    yield 1


def needs_asynchronous(db: Write, n: Annotated[int, Depends(asynchronous)]) -> None: ...


def needs_async_generator(db: Write, n: Annotated[int, Depends(async_generator)]) -> None: ...


def writing(db: Write) -> int:
    return 1


def needs_writing(db: Read, n: Annotated[int, Depends(writing)]) -> None: ...


def nested_writing(db: Read, n: Annotated[None, Depends(needs_writing)]) -> None: ...


def second(db: Read, n: Annotated[int, Depends(needs_second)]) -> None: ...


def needs_second(n: Annotated[int, Depends(second)]) -> int:
    return n


def own_cycle(n: Annotated[int, Depends(own_cycle)]) -> int:
    return n


def other_hint(pct: str) -> str:
    return pct


def clash(pct: int, g: Annotated[str, Depends(other_hint)]) -> None: ...


def other_default(pct: int = 5) -> int:
    return pct


def default_clash(pct: int, g: Annotated[int, Depends(other_default)]) -> None: ...


def not_callable(n: Annotated[int, Depends(5)]) -> None: ...


def dependency_and_default(n: Annotated[int, Depends(other_default)] = 5) -> None: ...


def bad_dependency(n: Annotated[None, Depends(unhinted)]) -> None: ...


def Upper(n: int) -> None: ...  # noqa: N802


MUTATIONS = [
    (with_args, "*args", ""),
    (with_kwargs, "**kwargs", ""),
    (positional, "positional only", "db"),
    (unhinted, "has no hint", "site"),
    (handles_in_list, "Read inside another type", "dbs"),
    (optional_handle, "Read inside another type", "db"),
    (context_in_dict, "Context inside another type", "contexts"),
    (handle_with_default, "no default", "db"),
    (unsupported, "complex", "at[]"),
    (ambiguous, "ambiguous", "at{}"),
    (two_datasets, "several Datasets: one, other", ""),
    (dataset_in_list, "A Dataset is a parameter", "rows[]"),
    (bad_default, "default of n that is no int", ""),
    (no_default, "default of n that is no int", ""),
    (yields, "yields", ""),
    (asynchronous, "is asynchronous", ""),
    (needs_asynchronous, "by its dependency asynchronous", ""),
    (needs_async_generator, "by its dependency async_generator", ""),
    (second, "cycle of dependencies: needs_second -> second -> needs_second", ""),
    (own_cycle, "cycle of dependencies", ""),
    (clash, "two parameters 'pct': pct: int in clash, pct: str in other_hint", ""),
    (default_clash, "two parameters 'pct'", ""),
    (not_callable, "cannot be called", ""),
    (dependency_and_default, "a dependency and a default", ""),
    (bad_dependency, "unhinted: the parameter site has no hint", ""),
    (Upper, "not a function name", ""),
]


@pytest.mark.parametrize(("function", "why", "place"), MUTATIONS, ids=[m[0].__name__ for m in MUTATIONS])
def test_a_mutation_with_a_fault_is_refused(function: Callable[..., Any], why: str, place: str) -> None:
    """The message names the function, what is wrong with it and where it is written."""
    error = refused(lambda app: app.mutation(function))
    assert re.search(re.escape(why), error.message)
    assert place in error.message
    assert re.fullmatch(r".*test_app_registration\.py:\d+", error.where or "")


QUERIES = [
    (reserved, "reserved name 'page_size'"),
    (writing, "asks for a Write handle"),
    (needs_writing, "by its dependency writing, for a Write handle"),
    (nested_writing, "by its dependency writing, for a Write handle"),
    (async_generator, "yields"),
]


@pytest.mark.parametrize(("function", "why"), QUERIES, ids=[q[0].__name__ for q in QUERIES])
def test_a_query_with_a_fault_is_refused(function: Callable[..., Any], why: str) -> None:
    """A query never writes, whatever it depends on."""
    assert why in refused(lambda app: app.query(function)).message


def test_a_name_is_used_once() -> None:
    """Two functions of one name, and one with a built-in function's, are refused."""

    def twice(app: App) -> None:
        app.query(name="total")(partial(other_default))
        app.mutation(name="total")(writing)

    assert "total is registered twice" in refused(twice).message
    for name in ("append", "query", "functions", "health"):
        assert "built-in" in refused(lambda app, name=name: app.mutation(name=name)(writing)).message  # type: ignore[misc]
    with pytest.raises(OperatorError, match="not an app name"):
        App("Sales Goals")


def test_a_decorator_takes_a_function() -> None:
    """A name in its place is an error that names the right form."""
    error = refused(lambda app: app.mutation("set_goals"))  # type: ignore[call-overload]
    assert error.hint == "A name: @app.mutation(name=...)."


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"time_ms_max": 0}, "time_ms_max"),
        ({"time_ms_max": 1.5}, "time_ms_max"),
        ({"labels": {"a": 1}}, "labels"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], why: str) -> None:
    """Options are checked as parameters are."""
    assert why in refused(lambda app: app.mutation(**options)(writing)).message


def test_a_hint_can_name_what_is_defined_further_down() -> None:
    """A function is resolved when it is first used, if its hints name what did not exist before."""
    app = App("sales_goals")

    @app.query
    def later(at: Later) -> int:  # type: ignore[name-defined]  # noqa: F821
        return int(at.n)

    with pytest.raises(OperatorError, match="The hints of later cannot be resolved: name 'Later'") as e:
        _ = app.functions
    assert e.value.code == Code.BAD_APP
    globals()["Later"] = Later_
    try:
        assert app.functions["later"].read_arguments({"at": {"n": 3}}) == {"at": Later_(3)}
    finally:
        del globals()["Later"]


@frozen
class Later_:  # noqa: N801
    """A class that a hint names before it exists."""

    n: int


def test_hints_can_name_what_a_function_defines() -> None:
    """A function registered within another one sees that one's names, as in a test or a script."""

    class Local(frozenset[int]):
        """A class that only this function has."""

    app = App("sales_goals")
    with pytest.raises(OperatorError, match="Local is no type"):

        @app.query
        def local(at: Local) -> int:
            return len(at)

    Number = int  # noqa: N806

    @app.query
    def count(n: Number) -> int:  # type: ignore[valid-type]
        return int(n)

    assert app.functions["count"].signature == "count(n: int) -> int"


def test_a_cell_can_be_run_again() -> None:
    """In a notebook the same function, defined again, takes the place of the former."""
    app = App("sales_goals")
    for text in ("1", "2"):
        names: dict[str, Any] = {"__name__": "__main__", "app": app}
        exec(f"@app.query\ndef one() -> int:\n    return {text}", names)  # noqa: S102  as a notebook does
    assert app.functions["one"].run({}, None, None) == 2  # type: ignore[arg-type]


class Scaled:
    """A dependency that is an object, or a method of it."""

    def __init__(self, by: int) -> None:
        self.by = by

    def __call__(self, n: int) -> int:
        return n * self.by

    def halved(self, n: int) -> int:
        """Return half of it."""
        return n * self.by // 2


class Held:
    """A dependency that is a class."""

    def __init__(self, n: int) -> None:
        self.n = n


def power(n: int, *, exponent: int) -> int:
    return int(n**exponent)


def test_a_dependency_can_be_anything_that_is_called() -> None:
    """Objects, classes, methods and partial functions are dependencies as functions are."""
    app = App("sales_goals")
    scaled = Scaled(3)

    @app.query
    def use(
        a: Annotated[int, Depends(scaled)],
        b: Annotated[Held, Depends(Held)],
        c: Annotated[int, Depends(scaled.halved)],
        d: Annotated[int, Depends(partial(power, exponent=2))],
    ) -> Any:
        return a, b.n, c, d

    found = app.functions["use"]
    assert found.signature == "use(n: int, exponent: int = 2)"
    arguments = found.read_arguments({"n": 4})
    assert found.run(arguments, None, None) == (12, 4, 6, 16)  # type: ignore[arg-type]
