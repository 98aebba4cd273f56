"""A function and its traits: how the engine, the manager and the dispatcher treat its requests."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import Any

from attrs import frozen

from teatree.contracts.formats.provenance import AppCode
from teatree.functions.arguments import Call
from teatree.functions.waiting_calls import WaitingCalls


class Nature(Enum):
    """What a function does to its model."""

    WRITES = auto()
    """Changes user tables."""
    READS = auto()
    """Answers from the state before it; changes nothing."""
    BARRIER = auto()
    """Names tables; its request is done when they are archived."""
    BEGINS = auto()
    """Begins an incarnation of the model; the writer creates the file from the arguments that it returns."""
    ENDS = auto()
    """Ends an incarnation of the model."""
    CONFIGURES = auto()
    """Changes the model's app to the one that it returns: its manager leaves, and the next one loads that."""


@frozen
class Traits:
    """How requests for a function are treated."""

    nature: Nature = Nature.WRITES
    alone: bool = False
    """Whether it is applied in a separate batch: it can take long, and others should not wait or be repeated for it."""
    copies: bool = False
    """Whether it copies whole tables: it has more time than the others, and its rows may take more of the file."""
    makes_rows: bool = False
    """Whether it makes rows that are not in its body: their memory is watched while it runs."""
    moves_keys: Callable[[bytes], bool] | None = None
    """Returns whether a request with this body can change primary keys in place; None if none can."""
    error_place: str = "arguments"
    """The argument that an error names if it names none itself."""
    time_ms_max: int | None = None
    """Milliseconds that a call may run; None for the model's limit."""
    app: AppCode | None = None
    """The app to which it belongs; None for a built-in function."""


@frozen
class Function:
    """One function of a model."""

    name: str
    run: Callable[[Any, Call], Any]
    """Called with a handle (`WriteAccess`; None if it begins an incarnation) and the arguments; returns its result."""
    traits: Traits = Traits()
    describe: Callable[[], dict[str, Any]] | None = None
    """Returns what users may know of a function of an app; a built-in one's docstring and code show it."""
    waiting: Callable[[], WaitingCalls] | None = None
    """Begins to collect neighbouring calls that run together, if it is batchable; it writes, and is not `alone`."""
