"""The function `replace`: rows in place of all that a table holds."""

from __future__ import annotations

from teatree.functions.arguments import Call, to_tables
from teatree.functions.handles import WriteAccess
from teatree.functions.inserts import insert
from teatree.functions.traits import Function, Traits


def replace(db: WriteAccess, call: Call) -> dict[str, int]:
    """Put rows in place of all that a table holds.

    table: The table.
    rows: All rows that the table is to hold.
    Result: `rows`: how many the table holds now.
    """
    table = db.table(call.text("table"))
    rows = call.rows(len(table.schema))
    call.finish(takes_rows=True)
    tables = to_tables(rows, table.schema)
    db.clear(table)
    return {"rows": insert(db, table, tables)}


FUNCTIONS = (Function("replace", replace, Traits(error_place="rows")),)
