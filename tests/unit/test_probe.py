"""The probe: what listeners receive, and that points cost nothing without them."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import timeit
from contextvars import copy_context
from pathlib import Path

import pytest

from places import Recorder, calling
from teatree.contracts.errors import Code, OperatorError, RetryError
from teatree.contracts.failpoints import failing_probe
from teatree.contracts.probe import NO_PROBE, Probe, probe_for

POINT_NS_MAX = 400
"""Nanoseconds of processor time for one point without a listener, several times what it takes: the machine is busy."""


def test_a_listener_receives_steps_and_instants_with_their_attributes() -> None:
    """Begin, end, nesting; attributes given at once, bound before, or added later."""
    recorder = Recorder()
    probe = probe_for([recorder]).bind(model="sales")
    with probe.step("outer", version=3) as outer:
        with probe.step("inner"):
            probe.point("instant", block=7)
        outer.add(rows=2)
    assert recorder.order == ["outer.begin", "inner.begin", "instant", "inner.end", "outer.end"]
    inner, instant, outer_point = (recorder.one(name) for name in ("inner", "instant", "outer"))
    assert outer_point.attributes == {"model": "sales", "version": 3, "rows": 2}
    assert instant.attributes == {"model": "sales", "block": 7}
    assert (instant.parent, inner.parent, outer_point.parent) == (inner, outer_point, None)
    assert recorder.seconds("outer") >= recorder.seconds("inner") >= 0


def test_a_failed_step_ends_with_its_error() -> None:
    """The error is passed to the listener and raised; what follows is outside of the step."""
    recorder = Recorder()
    probe = probe_for([recorder])
    error = ValueError("wrong")
    with pytest.raises(ValueError, match="wrong"), probe.step("step"):
        raise error
    assert recorder.errors == {"step": error}
    probe.point("after")
    assert recorder.one("after").parent is None


def test_a_step_without_a_block_begins_and_ends_once() -> None:
    """`begin` and `end` make it nothing's parent; an end without a begin, or a second one, is ignored."""
    recorder = Recorder()
    probe = probe_for([recorder])
    step = probe.step("step")
    step.end()
    step.begin()
    probe.point("meanwhile")
    step.end()
    step.end()
    assert recorder.order == ["step.begin", "meanwhile", "step.end"]
    assert recorder.one("meanwhile").parent is None


async def test_tasks_and_threads_have_the_step_in_which_they_were_started() -> None:
    """Two tasks at once do not see each other's steps; `asyncio.to_thread` and a copied context pass the step on."""
    recorder = Recorder()
    probe = probe_for([recorder])

    async def work(name: str) -> None:
        with probe.step(name):
            await asyncio.sleep(0)
            await asyncio.to_thread(probe.point, f"{name}-thread")

    with probe.step("parent"):
        await asyncio.gather(work("a"), work("b"))
        run = copy_context().run
    thread = threading.Thread(target=run, args=(probe.point, "copied"))
    thread.start()
    thread.join()
    for name in ("a", "b"):
        assert recorder.one(f"{name}-thread").parent is recorder.one(name)
        assert recorder.one(name).parent is recorder.one("parent")
    assert recorder.one("copied").parent is recorder.one("parent")


def test_the_last_listener_is_within_the_first() -> None:
    """Listeners take a begin in their order and an end in the opposite one, as nested blocks would."""
    order: list[str] = []

    def listener(name: str) -> Recorder:
        return Recorder(lambda place: order.append(f"{name} {place}"))

    with probe_for([listener("first"), listener("second")]).step("step"):
        pass
    assert order == ["first step.begin", "second step.begin", "second step.end", "first step.end"]


def test_a_failpoint_fails_where_its_file_asks(tmp_path: Path) -> None:
    """`error` at a hit, as often as it may fire; a step that fails reaches no end; a wrong action is refused."""
    plan = tmp_path / "plan.json"
    rules = {
        "a.begin": {"action": "error", "hit": 2, "times": 1},
        "b.end": {"action": "error"},
        "c": {"action": "explode"},
    }
    plan.write_text(json.dumps(rules))
    probe = failing_probe(str(plan))
    with probe.step("a"):
        pass
    with pytest.raises(RetryError) as caught, probe.step("a"):
        pass
    assert (caught.value.code, caught.value.where) == (Code.UNAVAILABLE, "a.begin")
    with probe.step("a"):
        pass
    with pytest.raises(ValueError, match="first"), probe.step("b"):
        raise ValueError("first")
    with pytest.raises(RetryError, match=r"b\.end"), probe.step("b"):
        pass
    with pytest.raises(OperatorError, match="explode"):
        probe.point("c")


def test_without_a_listener_the_probe_is_the_silent_one() -> None:
    """No file and no listener: the one probe that does nothing, also when it is bound."""
    assert failing_probe(None) is NO_PROBE
    assert probe_for([]) is NO_PROBE
    assert NO_PROBE.bind(model="sales") is NO_PROBE


def _cost_ns(statement: str, probe: Probe, times: int = 20_000) -> float:
    names = {"probe": probe, "request": object()}

    def seconds(what: str) -> float:
        return min(timeit.repeat(what, globals=names, number=times, repeat=7, timer=time.process_time))

    return (seconds(statement) - seconds("pass")) / times * 1e9


@pytest.mark.parametrize(
    ("statement", "points"),
    [
        ('probe.point("manager.apply.request", request=request)', 1),
        ('with probe.step("manager.apply", requests=request): pass', 2),
        ('with probe.step("manager.local.file", version=3, table="t"): pass', 2),
    ],
)
def test_a_point_without_a_listener_costs_nothing_measurable(statement: str, points: int) -> None:
    """Far below a microsecond: 13,000 requests a second lose less than a thousandth to the one point of each."""
    assert _cost_ns(statement, NO_PROBE) / points < POINT_NS_MAX


def test_places_name_instants_begins_and_ends() -> None:
    """The listener of the tests, and failpoints, get the same names."""
    places: list[str] = []
    probe = calling(places.append)
    with probe.step("gc.plan"):
        probe.point("gc.stubs")
    assert places == ["gc.plan.begin", "gc.stubs", "gc.plan.end"]
