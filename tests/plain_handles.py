"""Handles without a model, and a run of a function with one of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from typing_extensions import override

from teatree import Context, Read, Write
from teatree.contracts.formats.codec import parse_json
from teatree.functions.app.app_function import AppFunction

CONTEXT = Context("r-1", datetime(2026, 1, 1, tzinfo=UTC), "sales", "f")


class PlainRead(Read):
    """A handle without a model."""

    def __init__(self) -> None:
        """Read nothing."""


class PlainWrite(Write):
    """A handle without a model that writes."""

    def __init__(self) -> None:
        """Write nothing."""

    @override
    def read_only(self) -> Read:
        return PlainRead()


def run(function: AppFunction, body: str, handle: Read | Write | None = None) -> Any:
    """Run a function on the arguments of a JSON body."""
    return function.run(function.read_arguments(parse_json(body.encode())), handle or PlainWrite(), CONTEXT)
