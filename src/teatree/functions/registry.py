"""The functions that every model has, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum, auto
from typing import Any

from attrs import frozen

from teatree.contracts.errors import Code, RequestError
from teatree.functions import rows, tables
from teatree.functions.arguments import Call
from teatree.functions.load import load
from teatree.functions.model_arguments import read_model_arguments
from teatree.functions.restore import restore
from teatree.functions.sql import query, sql


class Nature(Enum):
    """What a function does to its model, and so how the writer schedules it."""

    WRITES = auto()
    """Changes user tables."""
    READS = auto()
    """Answers from the state before it; changes nothing."""
    INCARNATION = auto()
    """Begins or ends an incarnation of the model; the writer runs it, in a separate batch."""
    BARRIER = auto()
    """Is done when something outside the file is complete."""


@frozen
class BuiltIn:
    """One function of every model."""

    name: str
    nature: Nature
    run: Callable[[Any, Call], Any]
    alone: bool = False
    """Whether it is applied in a separate batch: it can take long, and others should not wait or be repeated for it."""
    copies: bool = False
    """Whether it copies whole tables: it has more time than the others, and its rows may take more of the file."""
    makes_rows: bool = False
    """Whether it makes rows that are not in its body: their memory is watched while it runs."""


def _archive(_: Any, call: Call) -> list[str]:
    """Return the tables to archive: those named, or none for all."""
    names = call.texts("tables", [])
    call.finish()
    return names


def _create_model(_: Any, call: Call) -> Any:
    return read_model_arguments(call)


def _drop_model(_: Any, call: Call) -> None:
    call.finish()


BUILT_INS: Mapping[str, BuiltIn] = {
    f.name: f
    for f in (
        BuiltIn("create_model", Nature.INCARNATION, _create_model, alone=True),
        BuiltIn("drop_model", Nature.INCARNATION, _drop_model, alone=True),
        BuiltIn("create_table", Nature.WRITES, tables.create_table),
        BuiltIn("alter_table", Nature.WRITES, tables.alter_table),
        BuiltIn("drop_table", Nature.WRITES, tables.drop_table),
        BuiltIn("append", Nature.WRITES, rows.append),
        BuiltIn("replace", Nature.WRITES, rows.replace),
        BuiltIn("upsert", Nature.WRITES, rows.upsert),
        BuiltIn("update", Nature.WRITES, rows.update, makes_rows=True),
        BuiltIn("delete", Nature.WRITES, rows.delete),
        BuiltIn("load", Nature.WRITES, load, alone=True, copies=True, makes_rows=True),
        BuiltIn("restore", Nature.WRITES, restore, alone=True, copies=True),
        BuiltIn("sql", Nature.WRITES, sql, makes_rows=True),
        BuiltIn("query", Nature.READS, query),
        BuiltIn("archive", Nature.BARRIER, _archive, alone=True),
    )
}


def find_function(name: str) -> BuiltIn:
    """Return a function by its name; raises `unknown_function`."""
    found = BUILT_INS.get(name)
    if found is None:
        raise RequestError(
            Code.UNKNOWN_FUNCTION,
            f"There is no function {name!r}.",
            where="function",
            hint=f"There are: {', '.join(sorted(BUILT_INS))}.",
        )
    return found
