"""The probe: named points of the code at which listeners attach, such as spans, metrics, or crashes in tests.

A point is an instant (`probe.point`) or a step with a begin and an end (`with probe.step`). `docs/points.md` lists all
of them. Without a listener a point is one call of an empty function. Attributes are passed as they are at hand, such as
a request or a batch: only a listener takes from them what it shows, so they cost nothing either.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Self

from attrs import frozen
from typing_extensions import override


@frozen(eq=False)
class Point:
    """One arrival at a point; for a step the same object at its begin and at its end."""

    name: str
    attributes: dict[str, Any]
    """What it is about: `model`, `version`, `offset`, `request` or `requests`, and others."""
    parent: Point | None
    """The innermost step within which it lies, in the same task or thread."""


class Listener(ABC):
    """Receives all points of a process, on the thread that reaches them; what it raises, the point raises."""

    @abstractmethod
    def reached(self, point: Point) -> None:
        """Take an instant."""

    @abstractmethod
    def begun(self, point: Point) -> None:
        """Take the begin of a step."""

    @abstractmethod
    def ended(self, point: Point, error: BaseException | None) -> None:
        """Take the end of a step; `error` is what ended it, None if it succeeded."""


class ProbeStep(ABC):
    """A step, as a context manager; or with `begin` and `end` where no block encloses it."""

    @abstractmethod
    def begin(self) -> Self:
        """Begin it, without making it the parent of what follows."""

    @abstractmethod
    def end(self, error: BaseException | None = None) -> None:
        """End it, unless it was not begun or has ended."""

    @abstractmethod
    def add(self, **attributes: Any) -> None:
        """Add attributes that are known only now."""

    @abstractmethod
    def __enter__(self) -> Self: ...

    @abstractmethod
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Probe(ABC):
    """Where the code reports its points."""

    @abstractmethod
    def point(self, name: str, /, **attributes: Any) -> None:
        """Report an instant."""

    @abstractmethod
    def step(self, name: str, /, **attributes: Any) -> ProbeStep:
        """Return a step that is about to begin."""

    @abstractmethod
    def bind(self, **attributes: Any) -> Probe:
        """Return a probe that adds these attributes to each point."""


def probe_for(listeners: Sequence[Listener]) -> Probe:
    """Return the probe that reports to these listeners, in their order; steps end in the opposite order."""
    return _ListenedProbe(tuple(listeners), {}) if listeners else NO_PROBE


class _SilentStep(ProbeStep):
    __slots__ = ()

    @override
    def begin(self) -> Self:
        return self

    @override
    def end(self, error: BaseException | None = None) -> None:
        pass

    @override
    def add(self, **attributes: Any) -> None:
        pass

    @override
    def __enter__(self) -> Self:
        return self

    @override
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


_SILENT_STEP = _SilentStep()


class _SilentProbe(Probe):
    __slots__ = ()

    @override
    def point(self, name: str, /, **attributes: Any) -> None:
        pass

    @override
    def step(self, name: str, /, **attributes: Any) -> ProbeStep:
        return _SILENT_STEP

    @override
    def bind(self, **attributes: Any) -> Probe:
        return self


NO_PROBE: Probe = _SilentProbe()
"""The probe of every process that nothing listens to."""
_STEP: ContextVar[Point | None] = ContextVar("step", default=None)
"""The innermost step of this task or thread."""


@frozen
class _ListenedProbe(Probe):
    _listeners: tuple[Listener, ...]
    _bound: dict[str, Any]

    @override
    def point(self, name: str, /, **attributes: Any) -> None:
        point = Point(name, {**self._bound, **attributes}, _STEP.get())
        for listener in self._listeners:
            listener.reached(point)

    @override
    def step(self, name: str, /, **attributes: Any) -> ProbeStep:
        return _ListenedStep(self._listeners, Point(name, {**self._bound, **attributes}, _STEP.get()))

    @override
    def bind(self, **attributes: Any) -> Probe:
        return _ListenedProbe(self._listeners, {**self._bound, **attributes})


class _ListenedStep(ProbeStep):
    def __init__(self, listeners: tuple[Listener, ...], point: Point) -> None:
        self._listeners = listeners
        self._point = point
        self._is_open = False

    @override
    def begin(self) -> Self:
        for listener in self._listeners:
            listener.begun(self._point)
        self._is_open = True
        return self

    @override
    def end(self, error: BaseException | None = None) -> None:
        if not self._is_open:
            return
        self._is_open = False
        for listener in reversed(self._listeners):
            listener.ended(self._point, error)

    @override
    def add(self, **attributes: Any) -> None:
        self._point.attributes.update(attributes)

    @override
    def __enter__(self) -> Self:
        self.begin()
        _STEP.set(self._point)
        return self

    @override
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _STEP.set(self._point.parent)
        self.end(error)
