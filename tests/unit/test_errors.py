"""The tree of error classes."""

from __future__ import annotations

import asyncio
import copy
import importlib
import multiprocessing
import pickle
import pkgutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import teatree
from teatree.contracts.errors import Code, CorruptError, FencedError, Refused, RequestError, TeatreeError
from teatree.contracts.settings import BreakerSettings
from teatree.engine.apply.transaction import UnexpectedError
from teatree.engine.errors import DamagedFileError, DamagedVersionError, TooManyRowsError, UnsureRowsError
from teatree.messaging.batches import _UnsentError
from teatree.messaging.jetstream import ApiError
from teatree.storage.breaker import Breaker, CircuitOpenError
from teatree.storage.objects.base import NotFoundError
from teatree_manager.read_workers.app_call import OtherCodeError

PAGE = Path(__file__).parents[2] / "docs" / "errors.md"


@pytest.mark.parametrize("code", list(Code))
def test_every_code_is_explained(code: Code) -> None:
    """Every code is described in docs/errors.md."""
    assert f"`{code}`" in PAGE.read_text()


def kinds(kind: type[TeatreeError] = TeatreeError) -> Iterator[type[TeatreeError]]:
    """Yield every kind of error in the whole package."""
    yield kind
    for narrower in kind.__subclasses__():
        yield from kinds(narrower)


async def unsent(text: str) -> _UnsentError:
    """Return the error of a batch behind one that was cancelled."""
    task: asyncio.Task[Any] = asyncio.create_task(asyncio.sleep(0))
    task.cancel(text)
    await asyncio.wait([task])
    return _UnsentError(task)


def make(kind: type[TeatreeError], text: str, where: str | None, hint: str | None) -> TeatreeError:
    """Return an error of a kind; classes with other constructors have a line here."""
    if kind is Refused:
        return Refused(text, where=where, hint=hint)
    if kind is FencedError:
        return FencedError(text, where=where)
    if issubclass(kind, CorruptError):
        return kind(text, where=where, hint=hint)
    if kind is OtherCodeError:
        return OtherCodeError(text, text)
    if kind is UnexpectedError:
        return UnexpectedError(text, ValueError(text))
    if kind is NotFoundError:
        return NotFoundError(text, text)
    if kind is CircuitOpenError:
        return CircuitOpenError(Breaker("A part", BreakerSettings()), "A part", text, 5)
    if kind is ApiError:
        return ApiError(Code.LOG_FULL, text, number=7, where=text, hint=hint)
    if kind is TooManyRowsError:
        return TooManyRowsError(2, 1)
    if kind is UnsureRowsError:
        return UnsureRowsError()
    if kind is _UnsentError:
        return asyncio.run(unsent(text))
    return kind(Code.BUSY, text, where=where, hint=hint)


def pickled(error: TeatreeError) -> Any:
    """Return an error after pickling, as another process receives it."""
    return pickle.loads(pickle.dumps(error))  # noqa: S301  bytes of this process


@given(text=st.text(), where=st.none() | st.text(), hint=st.none() | st.text())
def test_every_error_is_pickled_and_copied(text: str, where: str | None, hint: str | None) -> None:
    """A copy of an error, made in this process or in another one, has the same class and message."""
    for module in pkgutil.walk_packages(teatree.__path__, "teatree."):
        if "migrations.env" not in module.name and "__main__" not in module.name:
            importlib.import_module(module.name)
    for kind in (*kinds(), DamagedFileError, DamagedVersionError):
        error = make(kind, text, where, hint)
        error.add_note("a note")
        copies: list[TeatreeError] = [copy.copy(error), copy.deepcopy(error), pickled(error)]
        for again in copies:
            assert type(again) is kind
            assert (str(again), again.args, again.to_dict()) == (str(error), error.args, error.to_dict())
            assert (again.code, again.where, again.hint) == (error.code, error.where, error.hint)
            assert again.__notes__ == ["a note"]


def fail() -> None:
    """Raise in a worker process."""
    raise RequestError(Code.BAD_NAME, "No model has this name.", where="sales")


def test_a_worker_that_raises_does_not_break_its_pool() -> None:
    """An error from a worker of a ProcessPoolExecutor is raised in the parent, and the pool keeps working."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        for _ in range(2):
            with pytest.raises(RequestError, match="No model has"):
                pool.submit(fail).result(30)
        assert pool.submit(int, "7").result(30) == 7


def test_a_copy_keeps_what_a_kind_adds() -> None:
    """A class's additional members are copied; a breaker, which belongs to its process, is not."""
    assert pickled(NotFoundError("a/b", "file:///x")).key == "a/b"
    assert pickled(make(CircuitOpenError, "gone", None, None)).breaker is None
    assert isinstance(pickled(RequestError(Code.USAGE, "no")), RequestError)
