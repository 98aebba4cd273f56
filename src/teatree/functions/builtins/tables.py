"""The functions that change tables: `create_table`, `alter_table`, `drop_table`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from teatree.contracts.errors import Code, RequestError
from teatree.contracts.names import check_identifier, fold
from teatree.contracts.types.schema import Schema
from teatree.contracts.types.table_info import TableInfo
from teatree.datasets.ddl import add_column_sql, drop_column_sql, rebuild_sql, rename_column_sql
from teatree.datasets.defaults import is_computed
from teatree.functions.arguments import Call
from teatree.functions.handles import SqlAccess, WriteAccess
from teatree.functions.tables import made, make_table, read_column
from teatree.functions.traits import Function


def create_table(db: WriteAccess, call: Call) -> dict[str, Any]:
    """Create a table.

    table: The new table's name.
    columns: Objects with `name` and `type` (DuckDB's name of a type), and perhaps `nullable` (true) and `default` (a
        value, or `now()` and its like as a text).
    primary_key: Columns that together identify a row; `upsert` needs them, or a `key`.
    if_not_exists: Whether an existing table of this name is no error; its columns are not compared.
    Result: `created`: false if the table exists already and `if_not_exists` is set.
    """
    members = {
        "table": call.text("table"),
        "columns": call.items("columns"),
        "primary_key": call.texts("primary_key", []),
        "if_not_exists": call.flag("if_not_exists"),
    }
    call.finish()
    return {"created": make_table(db, members, "")}


def alter_table(db: SqlAccess, call: Call) -> dict[str, Any]:
    """Add, drop or rename columns of a table: exactly one of `add`, `drop`, `rename`.

    table: The table.
    add: A column, as `create_table` takes it. Without a default it has to be nullable.
    drop: A column's name; not one of the primary key, not the last one.
    rename: One old name and its new one: `{"old": "new"}`.
    Result: `columns`: the names of all columns afterwards.
    """
    table = db.table(call.text("table"))
    add = call.members("add", None)
    drop = call.text("drop", None)
    rename = call.members("rename", None)
    call.finish()
    if sum(change is not None for change in (add, drop, rename)) != 1:
        raise RequestError(Code.BAD_ARGUMENT, "alter_table takes one of 'add', 'drop' and 'rename'.", where="add")
    if add is not None:
        _add_column(db, table, add)
    elif drop is not None:
        _drop_column(db, table, drop)
    elif rename is not None:
        if len(rename) != 1:
            raise RequestError(Code.BAD_ARGUMENT, "'rename' is an object of one old and one new name.", where="rename")
        old, new = next(iter(rename.items()))
        found = table.schema.field(old, "rename")
        target = check_identifier(new, f"rename.{old}")
        if target in table.schema and fold(target) != fold(found.name):
            raise RequestError(Code.COLUMN_EXISTS, f"There is a column {target!r} already.", where=f"rename.{old}")
        db.run(rename_column_sql(table.name, found.name, target))
    if add is not None:
        made(db, table.name)
    else:
        db.changed(table.name, schema=True)
    return {"columns": list(db.table(table.name).schema.names)}


def _add_column(db: SqlAccess, table: TableInfo, add: dict[str, Any]) -> None:
    column = read_column(add, "add")
    if column.name in table.schema:
        raise RequestError(Code.COLUMN_EXISTS, f"There is a column {column.name!r} already.", where="add.name")
    if not column.nullable and column.default is None:
        raise RequestError(
            Code.BAD_ARGUMENT,
            f"The column {column.name!r} takes no null and has no default: the rows that are there need a value.",
            where="add",
            hint="Give it a default, or let it be nullable.",
        )
    if column.nullable or not is_computed(add["default"], column.dtype):
        _run_all(db, add_column_sql(table.name, column))
    else:  # DuckDB sets NOT NULL in no transaction that computed the values
        schema = Schema((*table.schema, column))
        _run_all(db, rebuild_sql(table.name, schema, table.primary_key, table.schema.names))


def _drop_column(db: SqlAccess, table: TableInfo, name: str) -> None:
    column = _droppable(table, name)
    names = table.schema.names
    if any(names.index(key) > names.index(column) for key in table.primary_key):  # DuckDB drops none before a key
        kept = [name for name in names if name != column]
        _run_all(db, rebuild_sql(table.name, table.schema.select(kept), table.primary_key, kept))
    else:
        db.run(drop_column_sql(table.name, column))


def _run_all(db: SqlAccess, statements: Sequence[str]) -> None:
    for statement in statements:
        db.run(statement)


def _droppable(table: TableInfo, name: str) -> str:
    column = table.schema.field(name, "drop").name
    if column in table.primary_key:
        raise RequestError(Code.CONSTRAINT, f"The column {column!r} belongs to the primary key.", where="drop")
    if len(table.schema) == 1:
        message = f"The column {column!r} is the last one of {table.name!r}."
        raise RequestError(Code.CONSTRAINT, message, where="drop", hint="Use drop_table.")
    return column


def drop_table(db: WriteAccess, call: Call) -> dict[str, Any]:
    """Drop a table.

    table: The table.
    if_exists: Whether a missing table is no error.
    Result: `dropped`: false if there was no such table and `if_exists` is set.
    """
    name = call.text("table")
    missing_ok = call.flag("if_exists")
    call.finish()
    return {"dropped": drop(db, name, missing_ok=missing_ok)}


def drop(db: WriteAccess, name: str, *, missing_ok: bool) -> bool:
    """Drop a table; return False if there is none and that is no error."""
    found = db.find_table(name)
    if missing_ok and found is None:
        return False
    table = found or db.table(name)  # it can be one that cannot be described
    db.drop_table(table.name)
    return True


FUNCTIONS = (
    Function("create_table", create_table),
    Function("alter_table", alter_table),
    Function("drop_table", drop_table),
)
