"""The context of a call: all that a function needs to be deterministic, and its way to report."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, MutableMapping
from datetime import datetime
from functools import cached_property
from typing import Any

from attrs import frozen
from blake3 import blake3
from typing_extensions import override

from teatree.contracts.logs import MEMBERS

ProgressReport = Callable[[float, str], None]
_LOGGER = "teatree.app"


def report_nothing(fraction: float, text: str) -> None:
    """Publish nothing."""


class AppLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger of Python's standard logging whose lines name the request; `extra` adds members to a line."""

    @override
    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        members = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        return msg, {**kwargs, "extra": {MEMBERS: members}}


@frozen(eq=False)
class Context:
    """What a function is given beside its handle and arguments; the same whenever the same request is run."""

    request_id: str
    at: datetime
    """The time of the request, by the log: a request that is applied again has the same."""
    model: str
    function: str
    report: ProgressReport = report_nothing

    def progress(self, fraction: float, text: str = "") -> None:
        """Report how far the function is, from 0 to 1, and with what; published about once a second at most."""
        part = float(fraction)
        shown_text = str(text).encode("utf-8", "backslashreplace").decode()
        self.report(min(part, 1.0) if part > 0 else 0.0, shown_text)

    @cached_property
    def logger(self) -> AppLogger:
        """A logger whose lines name the model, the function and the request."""
        members = {"model": self.model, "function": self.function, "request_id": self.request_id}
        return AppLogger(logging.getLogger(_LOGGER), members)

    @cached_property
    def random(self) -> random.Random:
        """A generator seeded by the model and the request's id: the same numbers whenever the request is run."""
        seed = blake3(f"{self.model}/{self.request_id}".encode()).digest()
        return random.Random(int.from_bytes(seed, "big"))  # noqa: S311  repeatable, as it must be
