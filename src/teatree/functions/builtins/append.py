"""The function `append`: rows added to a table; neighbouring ones of JSON rows become one INSERT."""

from __future__ import annotations

from teatree.functions.arguments import Call, to_tables
from teatree.functions.builtins.waiting_appends import WaitingAppends, append_arguments
from teatree.functions.handles import WriteAccess
from teatree.functions.inserts import insert
from teatree.functions.traits import Function, Traits


def append(db: WriteAccess, call: Call) -> dict[str, int]:
    """Add rows to a table.

    table: The table.
    rows: The rows. A column that is left out has its default, else NULL.
    Result: `rows`: how many were added.
    """
    table, rows = append_arguments(db, call)
    return {"rows": insert(db, table, to_tables(rows, table.schema))}


FUNCTIONS = (Function("append", append, Traits(error_place="rows"), waiting=WaitingAppends),)
