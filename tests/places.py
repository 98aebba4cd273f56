"""The places of the probe, as docs/points.md lists them, and listeners for tests."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

from typing_extensions import override

from teatree.contracts.failpoints import PlaceListener
from teatree.contracts.probe import Point, Probe, probe_for

_PAGE = Path(__file__).parents[1] / "docs" / "points.md"
_ROW = re.compile(r"^\| `([a-z_.]+)` \| (instant|step) \|", re.MULTILINE)


@cache
def places(prefix: str) -> list[str]:
    """Return the places under a prefix: instants, and the begin and the end of each step."""
    found: list[str] = []
    for name, kind in _ROW.findall(_PAGE.read_text(encoding="utf-8")):
        if name.startswith(f"{prefix}."):
            found += [name] if kind == "instant" else [f"{name}.begin", f"{name}.end"]
    assert found, prefix
    return found


class Recorder(PlaceListener):
    """Records all points in their order, and how long each step took."""

    def __init__(self, call: Callable[[str], None] | None = None) -> None:
        """`call` is called with each place, before it is recorded."""
        self.order: list[str] = []
        self.points: list[Point] = []
        """Instants when they are reached, steps when they begin."""
        self.errors: dict[str, BaseException] = {}
        self._call = call
        self._began_s: dict[Point, float] = {}
        self._took_s: dict[Point, float] = {}

    @override
    def arrive(self, place: str) -> None:
        if self._call is not None:
            self._call(place)
        self.order.append(place)

    @override
    def reached(self, point: Point) -> None:
        super().reached(point)
        self.points.append(point)

    @override
    def begun(self, point: Point) -> None:
        super().begun(point)
        self.points.append(point)
        self._began_s[point] = time.monotonic()

    @override
    def ended(self, point: Point, error: BaseException | None) -> None:
        self._took_s[point] = time.monotonic() - self._began_s[point]
        super().ended(point, error)
        if error is not None:
            self.errors[point.name] = error

    def clear(self) -> None:
        """Forget what was recorded."""
        self.order.clear()
        self.points.clear()
        self.errors.clear()

    def one(self, name: str) -> Point:
        """Return the only point of a name."""
        (point,) = (point for point in self.points if point.name == name)
        return point

    def seconds(self, name: str) -> float:
        """Return how long the only step of a name took."""
        return self._took_s[self.one(name)]


def calling(call: Callable[[str], None]) -> Probe:
    """Return a probe that calls a function with each place."""
    return probe_for([Recorder(call)])
