"""The function `restore`: the user tables of an earlier version, put in place of the present ones."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from teatree.contracts.errors import Code, OperatorError
from teatree.contracts.formats.manifest import TableEntry
from teatree.contracts.names import fold
from teatree.datasets.ddl import quote
from teatree.functions.arguments import Call
from teatree.functions.handles import SqlAccess
from teatree.functions.history import retry_while_unavailable
from teatree.functions.traits import Function, Traits


def restore(db: SqlAccess, call: Call) -> dict[str, Any]:
    """Make the user tables equal those of a version: rows, columns, defaults and keys; everything else stays.

    A table that nothing has changed since is left as it is, so that the new version costs what differs.

    version: The version's number. Those in between stay in the history.
    Result: `version`, `tables` (the names of those that were put back), `rows` (theirs), `dropped` (tables that the
        version did not have).
    """
    number = call.integer("version")
    call.finish()
    history, limits = call.context.history, call.context.limits
    if history is None:
        raise OperatorError(Code.INTERNAL, "restore was called where there is no history.")
    manifest = retry_while_unavailable(
        limits, "The version could not be looked up", "version", lambda: history.version(number)
    )
    unchanged = history.unchanged(manifest)
    wanted = {fold(entry.name): entry for entry in manifest.tables}
    dropped = [name for name in db.tables() if fold(name) not in wanted]
    differing = [entry for entry in manifest.tables if entry.name not in unchanged]
    with ExitStack() as opened:
        if differing:

            def enter() -> str:  # each try anew: a context manager can be entered once
                return opened.enter_context(history.opened(manifest))

            database = retry_while_unavailable(limits, "The version could not be read", "version", enter)
            for entry in differing:
                _restore_table(db, entry, database)
    for name in dropped:
        db.drop_table(name)
    return {
        "version": number,
        "tables": [entry.name for entry in differing],
        "rows": sum(entry.rows for entry in differing),
        "dropped": dropped,
    }


def _restore_table(db: SqlAccess, entry: TableEntry, database: str) -> None:
    present = db.find_table(entry.name)
    if present is not None:
        db.drop_table(present.name)
    if entry.fault is None:
        db.create_table(entry.name, entry.schema, entry.primary_key)
    else:  # what cannot be described is made as it was, by DuckDB's own SQL
        ((made,),) = db.run(
            "SELECT sql FROM duckdb_tables() WHERE database_name = ? AND schema_name = 'main' AND table_name = ?",
            (database, entry.name),
        )
        db.run(made)
    db.run(f"INSERT INTO {quote(entry.name)} SELECT * FROM {quote(database)}.main.{quote(entry.name)}")
    db.changed(entry.name, schema=True)


FUNCTIONS = (Function("restore", restore, Traits(alone=True, copies=True)),)
