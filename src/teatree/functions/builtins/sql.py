"""The function `sql`: one guarded statement that changes rows."""

from __future__ import annotations

from teatree.functions.arguments import Call
from teatree.functions.handles import SqlAccess
from teatree.functions.traits import Function, Traits


def sql(db: SqlAccess, call: Call) -> dict[str, int]:
    """Run one guarded INSERT, UPDATE, DELETE or MERGE.

    statement: One INSERT, UPDATE, DELETE or MERGE on the model's tables. What reads files, settings or other databases
        is refused (`sql_not_allowed`).
    parameters: The statement's parameters: texts, numbers, true, false or null.
    Result: `rows`: how many were changed.
    """
    statement = call.text("statement")
    parameters = call.parameters()
    call.finish()
    return {"rows": db.statement(statement, parameters)}


def _moves_keys(body: bytes) -> bool:
    """Return whether the statement can be an UPDATE, also one whose letters are escaped."""
    body = body.lower()
    return b"update" in body or b"\\u" in body


FUNCTIONS = (Function("sql", sql, Traits(makes_rows=True, moves_keys=_moves_keys, error_place="statement")),)
