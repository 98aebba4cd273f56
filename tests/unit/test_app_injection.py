"""Dependencies: each once in a run, torn down in the opposite order, on one thread."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any

import pytest

from plain_handles import CONTEXT, PlainRead, PlainWrite, run
from teatree import App, Context, Depends, Read, RequestError, Write

events: list[str] = []


@pytest.fixture(autouse=True)
def no_events() -> None:
    """Begin without events."""
    events.clear()


def outer() -> Iterator[str]:
    """Note its set-up and its tear-down."""
    events.append("outer up")
    try:
        yield "outer"
    except ValueError:
        events.append("outer saw it")
    finally:
        events.append("outer down")


def inner(of: Annotated[str, Depends(outer)]) -> Iterator[str]:
    """Depend on another one that is torn down later."""
    events.append("inner up")
    try:
        yield f"inner of {of}"
    finally:
        events.append("inner down")


def fail(text: str) -> None:
    """Raise, if there is a reason."""
    if text:
        raise ValueError(text)


def sync_app() -> App:
    """Return an app whose functions and dependencies are synchronous."""
    app = App("orders")

    @app.mutation
    def work(db: Write, b: Annotated[str, Depends(inner)], a: Annotated[str, Depends(outer)], error: str = "") -> str:
        events.append(f"{a}, {b}")
        fail(error)
        return b

    return app


def async_app() -> App:
    """Return an app with a coroutine function, which has the same dependencies."""
    app = App("orders")

    @app.query
    async def work(
        db: Read, b: Annotated[str, Depends(inner)], a: Annotated[str, Depends(outer)], error: str = ""
    ) -> str:
        events.append(f"{a}, {b}")
        fail(error)
        return b

    return app


def mixed_app() -> App:
    """Return an app with a synchronous query, one of whose dependencies is asynchronous."""
    app = App("orders")

    async def beside(of: Annotated[str, Depends(inner)]) -> AsyncIterator[str]:
        yield of

    @app.query
    def work(b: Annotated[str, Depends(beside)], a: Annotated[str, Depends(outer)], error: str = "") -> str:
        events.append(f"{a}, {b}")
        fail(error)
        return b

    return app


APPS = pytest.mark.parametrize("make", [sync_app, async_app, mixed_app])


@APPS
def test_tear_down_is_in_the_opposite_order(make: Callable[[], App]) -> None:
    """What was set up last is torn down first, after the function."""
    assert run(make().functions["work"], "{}") == "inner of outer"
    assert events == ["outer up", "inner up", "outer, inner of outer", "inner down", "outer down"]


@APPS
def test_a_dependency_sees_an_error_and_cannot_hide_it(make: Callable[[], App]) -> None:
    """An error of the function is the run's, though a dependency caught it."""
    with pytest.raises(ValueError, match="bad"):
        run(make().functions["work"], '{"error": "bad"}')
    assert events[-3:] == ["inner down", "outer saw it", "outer down"]


@pytest.mark.parametrize("is_async", [False, True])
def test_an_error_of_a_tear_down_fails_the_run(is_async: bool) -> None:  # noqa: FBT001
    """A tear-down that raises is an error of the run; the others are torn down all the same."""
    app = App("orders")

    def breaking(of: Annotated[str, Depends(outer)]) -> Iterator[str]:
        yield of
        raise KeyError("lost")

    def twice() -> Iterator[int]:
        yield 1
        yield 2

    if is_async:

        @app.query
        async def work(a: Annotated[str, Depends(breaking)]) -> str:
            return a
    else:

        @app.query(name="work")
        def work_directly(a: Annotated[str, Depends(breaking)]) -> str:
            return a

    @app.query
    def again(a: Annotated[int, Depends(twice)]) -> int:
        return a

    with pytest.raises(KeyError, match="lost"):
        run(app.functions["work"], "{}")
    assert events == ["outer up", "outer down"]
    with pytest.raises(RuntimeError, match="didn't stop"):
        run(app.functions["again"], "{}")


def test_one_name_can_mean_different_things() -> None:
    """A parameter's name belongs to its callable: handles, dependencies and contexts of one name do not mix."""
    app = App("orders")

    def db(db: Read, context: Context) -> str:
        return f"{type(db).__name__} {context.request_id}"

    def read(write: Annotated[str, Depends(db)], db: Write) -> str:
        return f"{write} {type(db).__name__}"

    @app.mutation
    def work(
        db: Write,
        read: Annotated[str, Depends(read)],
        write: Annotated[str, Depends(db)],
        context: str,
        dependency_1: int,
    ) -> Any:
        return type(db).__name__, read, write, context, dependency_1

    got = run(app.functions["work"], '{"context": "c", "dependency_1": 5}')
    assert got == ("PlainWrite", "PlainRead r-1 PlainWrite", "PlainRead r-1", "c", 5)


def test_a_dependency_without_cache_is_resolved_for_each() -> None:
    """`use_cache=False` asks for a new one."""
    app = App("orders")
    counted: list[int] = []

    def count() -> int:
        counted.append(1)
        return len(counted)

    @app.query
    def work(
        a: Annotated[int, Depends(count)],
        b: Annotated[int, Depends(count)],
        c: Annotated[int, Depends(count, use_cache=False)],
    ) -> Any:
        return a, b, c

    assert run(app.functions["work"], "{}") == (1, 1, 2)
    assert run(app.functions["work"], "{}") == (3, 3, 4)


def test_all_of_a_run_is_on_one_thread() -> None:
    """Synchronous dependencies of an asynchronous function are not given to other threads: a handle works on one."""
    app = App("orders")
    threads: set[int] = set()

    def plain(db: Read) -> Iterator[int]:
        threads.add(threading.get_ident())
        yield 1
        threads.add(threading.get_ident())

    def called(db: Read) -> int:
        threads.add(threading.get_ident())
        return 1

    @app.query
    async def work(a: Annotated[int, Depends(plain)], b: Annotated[int, Depends(called)]) -> int:
        threads.add(threading.get_ident())
        return a + b

    assert run(app.functions["work"], "{}", PlainRead()) == 2
    assert threads == {threading.get_ident()}


async def test_an_asynchronous_function_is_not_run_within_a_loop() -> None:
    """A running event loop cannot wait for another one: the error names what to do."""
    with pytest.raises(RequestError, match="to_thread"):
        async_app().functions["work"].run({"error": ""}, PlainRead(), CONTEXT)


def test_runs_share_nothing() -> None:
    """Threads can run one function at the same time."""
    app = App("orders")
    barrier = threading.Barrier(4)

    def held(n: int) -> Iterator[int]:
        barrier.wait(10)
        yield n
        barrier.wait(10)

    @app.query
    def work(held: Annotated[int, Depends(held)], n: int) -> Any:
        return held, n

    found: dict[int, Any] = {}
    function = app.functions["work"]

    def call(n: int) -> None:
        found[n] = function.run({"n": n}, PlainWrite(), CONTEXT)

    threads = [threading.Thread(target=call, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert found == {n: (n, n) for n in range(4)}
