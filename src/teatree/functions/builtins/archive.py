"""The function `archive`: done when tables are archived."""

from __future__ import annotations

from typing import Any

from teatree.functions.arguments import Call
from teatree.functions.traits import Function, Nature, Traits


def archive(_: Any, call: Call) -> list[str]:
    """Make the Parquet archive of this moment; `done` once it is complete.

    tables: The tables to archive; all if none is named.
    Result: `tables`; and `archive`, the version that was archived, where it is a later one because the store had lost
        blocks of this one.
    """
    names = call.texts("tables", [])
    call.finish()
    return names


FUNCTIONS = (Function("archive", archive, Traits(Nature.BARRIER, alone=True)),)
