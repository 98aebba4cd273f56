"""Calls of a batchable function that wait to run together: neighbours in the log become few statements."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from teatree.contracts.errors import RequestError
from teatree.contracts.formats.requests import Request
from teatree.functions.arguments import Call
from teatree.functions.handles import ReadAccess, WriteAccess


class CallGroup(ABC):
    """Waiting calls that run together; the groups of one `WaitingCalls` touch different tables."""

    @property
    @abstractmethod
    def requests(self) -> Sequence[Request]:
        """The requests of its calls."""

    @abstractmethod
    def refusals(self, db: WriteAccess) -> Mapping[int, RequestError]:
        """Return the calls, by number, that would fail after those before them; not all need be found."""

    @abstractmethod
    def run(self, db: WriteAccess, without: AbstractSet[int]) -> None:
        """Run the calls together, without some of them; raises what any of them causes."""


class WaitingCalls(ABC):
    """Calls of one function, in the order of the log. They run before any other function does."""

    @abstractmethod
    def takes(self, request: Request) -> bool:
        """Return whether a request can wait; another one is run alone by the function's `run`."""

    @abstractmethod
    def add(self, number: int, db: ReadAccess, call: Call) -> tuple[Any, tuple[str, ...]]:
        """Check a call, keep it under its number, and return its result and the tables that it will write.

        If it raises `RequestError`, it is not kept. It changes nothing and sends no statement: only `CallGroup.run`
        does.
        """

    @property
    @abstractmethod
    def size_bytes(self) -> int:
        """Estimated size of what the calls hold; they are run when it exceeds the limit of one request."""

    @abstractmethod
    def groups(self) -> Sequence[CallGroup]:
        """Return the calls in groups; each has the time of one request."""
