"""The registry of functions: a function is added by passing a registry, and the engine treats it by its traits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyarrow as pa
import pytest
from typing_extensions import override

from one_writer import OneWriter, Sent
from teatree.contracts.errors import Code, RequestError
from teatree.contracts.formats.manifest import ModelState
from teatree.contracts.formats.notices import Status
from teatree.contracts.formats.requests import Request
from teatree.contracts.settings import LimitSettings
from teatree.functions.arguments import Call
from teatree.functions.handles import ReadAccess, SqlAccess, WriteAccess
from teatree.functions.inserts import insert
from teatree.functions.registry import Registry, built_in_functions
from teatree.functions.traits import Function, Nature, Traits
from teatree.functions.waiting_calls import CallGroup, WaitingCalls
from teatree_manager.pipeline.applier import Applier
from teatree_manager.pipeline.crash_tracker import CrashTracker

AT = datetime(2026, 1, 1, tzinfo=UTC)
COUNTS = {"table": "counts", "columns": [{"name": "n", "type": "BIGINT"}], "primary_key": ["n"]}


class Counts(CallGroup):
    """The numbers of neighbouring `count` requests."""

    def __init__(self, runs: list[list[int]]) -> None:
        self._runs = runs
        self.calls: dict[int, Request] = {}
        self.numbers: dict[int, int] = {}

    @property
    @override
    def requests(self) -> Sequence[Request]:
        return list(self.calls.values())

    @override
    def refusals(self, db: WriteAccess) -> Mapping[int, RequestError]:
        assert isinstance(db, SqlAccess)
        seen = {row[0] for row in db.run("SELECT n FROM counts")}
        refused = {}
        for place, n in self.numbers.items():
            if n in seen:
                refused[place] = RequestError(Code.CONSTRAINT, f"{n} was counted.")
            seen.add(n)
        return refused

    @override
    def run(self, db: WriteAccess, without: AbstractSet[int]) -> None:
        numbers = [n for place, n in self.numbers.items() if place not in without]
        self._runs.append(numbers)
        insert(db, db.table("counts"), [pa.table({"n": pa.array(numbers, pa.int64())})])


class WaitingCounts(WaitingCalls):
    """`count` requests that wait."""

    def __init__(self, runs: list[list[int]]) -> None:
        self._group = Counts(runs)

    @override
    def takes(self, request: Request) -> bool:
        return True

    @override
    def add(self, number: int, db: ReadAccess, call: Call) -> tuple[dict[str, int], tuple[str, ...]]:
        n = call.integer("n")
        call.finish()
        self._group.calls[number] = call.request
        self._group.numbers[number] = n
        return {"counted": n}, ("counts",)

    @property
    @override
    def size_bytes(self) -> int:
        return 0

    @override
    def groups(self) -> Sequence[CallGroup]:
        return [self._group]


def clear(db: SqlAccess, call: Call) -> dict[str, int]:
    """Delete all rows of `counts`."""
    call.finish()
    ((rows,),) = db.run("DELETE FROM counts")
    db.changed("counts")
    return {"cleared": rows}


def never(*_: object) -> None:
    """Fail: a batchable function's calls all wait here."""
    raise AssertionError


@pytest.fixture
def runs() -> list[list[int]]:
    """Return what ran together, in order."""
    return []


@pytest.fixture
def functions(runs: list[list[int]]) -> Registry:
    """Return the built-in functions, a batchable one, and one that is applied alone."""
    count = Function("count", never, Traits(error_place="n"), waiting=lambda: WaitingCounts(runs))
    return built_in_functions().extended(count, Function("clear", clear, Traits(alone=True)))


@pytest.fixture
def model(tmp_path: Path, functions: Registry) -> Iterator[OneWriter]:
    """Return a model with these functions."""
    model = OneWriter(tmp_path, [COUNTS], functions=functions)
    yield model
    model.check_good_rows()
    model.close()


def counts(*numbers: int) -> list[Sent]:
    """Return `count` requests."""
    return [Sent("count", {"n": n}) for n in numbers]


def test_neighbouring_calls_of_a_batchable_function_run_together(model: OneWriter, runs: list[list[int]]) -> None:
    """Another function's call, batchable or not, runs after those before it, and each has its outcome."""
    append = Sent("append", {"table": "counts", "rows": [{"n": 10}]})
    sent = [*counts(1, 2), append, *counts(3), Sent("clear"), *counts(1, 4)]
    outcomes = model.apply(*sent)
    assert [outcome.status for outcome in outcomes] == [Status.DONE] * 7
    assert [outcome.result for outcome in outcomes[:2]] == [{"counted": 1}, {"counted": 2}]
    assert outcomes[4].result == {"cleared": 4}
    assert runs == [[1, 2], [3], [1, 4]]
    assert model.rows("SELECT n FROM counts ORDER BY n") == [{"n": 1}, {"n": 4}]


def test_a_waiting_call_that_fails_harms_only_itself(model: OneWriter) -> None:
    """It is refused with the error that the function found, at the place that its traits name."""
    wrong = Sent("count", {"n": "x"})
    outcomes = model.apply(*counts(1, 2, 1), wrong, *counts(3, 2))
    statuses = [outcome.status for outcome in outcomes]
    assert statuses == [Status.DONE, Status.DONE, Status.REJECTED, Status.REJECTED, Status.DONE, Status.REJECTED]
    errors = [outcome.error for outcome in outcomes if outcome.error]
    assert [(error["code"], error["where"]) for error in errors] == [
        ("constraint", "n"),
        ("bad_argument", "n"),
        ("constraint", "n"),
    ]
    assert model.rows("SELECT n FROM counts ORDER BY n") == [{"n": 1}, {"n": 2}, {"n": 3}]


def test_a_function_that_is_alone_has_a_batch(tmp_path: Path, functions: Registry) -> None:
    """A batch ends before it and after it."""
    writer = SimpleNamespace(state=ModelState.ACTIVE, limits=LimitSettings(), functions=functions)
    file = SimpleNamespace(writer=writer, crash_tracker=CrashTracker(tmp_path / "attempt", 3))
    context = SimpleNamespace(log=None)
    applier = Applier(cast("Any", context), cast("Any", file), cast("Any", None))
    names = ["count", "append", "clear", "clear", "count"]
    rest = [Request("m", name, seq, AT, str(seq)) for seq, name in enumerate(names, 1)]
    batches: list[list[str]] = []
    while rest:
        batch = applier.next_batch(rest)
        batches.append([request.function for request in batch])
        rest = rest[len(batch) :]
    assert batches == [["count", "append"], ["clear"], ["clear"], ["count"]]


def test_an_unknown_function_is_refused_with_those_that_there_are(model: OneWriter) -> None:
    """The hint lists the functions of this registry."""
    outcome = model.between(Sent("cuont", {"n": 1}))
    assert outcome.error is not None
    assert outcome.error["code"] == "unknown_function"
    assert "clear, count, create_model" in outcome.error["message"]


def test_a_name_stands_for_one_function() -> None:
    """Two functions of one name are a mistake; `extended` replaces on purpose."""
    with pytest.raises(ValueError, match="two functions 'clear'"):
        Registry.of([Function("clear", clear), Function("clear", never)])
    replaced = Registry.of([Function("clear", clear)]).extended(Function("clear", never))
    assert replaced.require("clear").run is never


def test_every_incarnation_begins_and_ends() -> None:
    """The built-in functions have one of each nature that manages incarnations and archives."""
    functions = built_in_functions()
    natures = (Nature.BEGINS, Nature.ENDS, Nature.BARRIER, Nature.READS, Nature.CONFIGURES)
    found = [functions.with_nature(nature) for nature in natures]
    assert found == [("create_model",), ("drop_model",), ("archive",), ("query",), ("use_app",)]
