"""The function `archive`: done when tables are archived."""

from __future__ import annotations

from typing import Any

from teatree.functions.arguments import Call
from teatree.functions.traits import Function, Nature, Traits


def archive(_: Any, call: Call) -> list[str]:
    """Return the tables to archive: those named, or none for all."""
    names = call.texts("tables", [])
    call.finish()
    return names


FUNCTIONS = (Function("archive", archive, Traits(Nature.BARRIER, alone=True)),)
