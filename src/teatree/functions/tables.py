"""The built-in functions that change tables: create_table, alter_table, drop_table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from teatree.contracts.dtypes import Array, Interval, List, Map, Struct
from teatree.contracts.errors import Code, RequestError
from teatree.contracts.names import check_identifier, check_table, fold
from teatree.contracts.schema import Field, Schema, parse_dtype
from teatree.contracts.shown import shown
from teatree.contracts.table_info import TableInfo
from teatree.datasets.ddl import (
    add_column_sql,
    create_table_sql,
    drop_column_sql,
    quote,
    rebuild_sql,
    rename_column_sql,
)
from teatree.datasets.defaults import default_sql, is_computed
from teatree.functions.arguments import Call
from teatree.functions.handles import Write

TABLES_MAX = 1_000
"""Tables of one model: every manifest names them all."""
TABLES_CHARS_MAX = 8_000_000
"""Characters of the descriptions of all tables: every manifest holds them, and each version writes one."""
NO_KEY = (Array, Interval, List, Map, Struct)
"""Types that no key can have: DuckDB cannot index them."""
_COLUMN_MEMBERS = {"name", "type", "nullable", "default"}
TABLE_MEMBERS = {"table", "columns", "primary_key", "if_not_exists"}


def create_table(db: Write, call: Call) -> dict[str, Any]:
    """Create a table."""
    members = {
        "table": call.text("table"),
        "columns": call.items("columns"),
        "primary_key": call.texts("primary_key", []),
        "if_not_exists": call.flag("if_not_exists"),
    }
    call.finish()
    return {"created": make_table(db, members, "")}


def make_table(db: Write, members: dict[str, Any], where: str) -> bool:
    """Create the table that `create_table`'s members describe; return False if it exists and may exist."""
    name = check_table(members.get("table"), f"{where}table")
    columns = members.get("columns")
    if not isinstance(columns, list) or not columns:
        raise RequestError(Code.MISSING_ARGUMENT, "A table needs at least one column.", where=f"{where}columns")
    schema = Schema(tuple(_column(raw, f"{where}columns[{place}]") for place, raw in enumerate(columns)))
    key = members.get("primary_key") or []
    if not isinstance(key, list):
        raise RequestError(Code.BAD_ARGUMENT, "'primary_key' must be a list of columns.", where=f"{where}primary_key")
    primary_key = tuple(_key_column(schema, name, f"{where}primary_key[{place}]") for place, name in enumerate(key))
    if db.find_table(name) is not None:
        if members.get("if_not_exists"):
            return False
        raise RequestError(Code.TABLE_EXISTS, f"There is a table {name!r} already.", where=f"{where}table")
    if len(db.tables()) >= TABLES_MAX:
        raise RequestError(Code.OUT_OF_RANGE, f"A model has at most {TABLES_MAX} tables.", where=f"{where}table")
    db.run(create_table_sql(name, schema, primary_key))
    made(db, name)
    return True


def made(db: Write, name: str) -> TableInfo:
    """Return a table that was made or got a column; raises for what cannot be read back or described in a manifest."""
    db.changed(name, schema=True)
    if db.tables_chars > TABLES_CHARS_MAX:
        raise RequestError(
            Code.OUT_OF_RANGE,
            f"The tables' columns take {db.tables_chars:,} characters to describe; a model has at most"
            f" {TABLES_CHARS_MAX:,}.",
            where="columns",
            hint="Use shorter types (an ENUM's values count), or fewer columns.",
        )
    return db.table(name)


def alter_table(db: Write, call: Call) -> dict[str, Any]:
    """Add, drop or rename columns of a table: exactly one of `add`, `drop`, `rename`."""
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


def _add_column(db: Write, table: TableInfo, add: dict[str, Any]) -> None:
    column = _column(add, "add")
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


def _drop_column(db: Write, table: TableInfo, name: str) -> None:
    column = _droppable(table, name)
    names = table.schema.names
    if any(names.index(key) > names.index(column) for key in table.primary_key):  # DuckDB drops none before a key
        kept = [name for name in names if name != column]
        _run_all(db, rebuild_sql(table.name, table.schema.select(kept), table.primary_key, kept))
    else:
        db.run(drop_column_sql(table.name, column))


def _run_all(db: Write, statements: Sequence[str]) -> None:
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


def drop_table(db: Write, call: Call) -> dict[str, Any]:
    """Drop a table."""
    name = call.text("table")
    missing_ok = call.flag("if_exists")
    call.finish()
    found = db.find_table(name)
    if missing_ok and found is None:
        return {"dropped": False}
    table = found or db.table(name)  # it can be one that cannot be described
    db.run(f"DROP TABLE {quote(table.name)}")
    db.dropped(table.name)
    return {"dropped": True}


def _key_column(schema: Schema, name: object, where: str) -> str:
    if not isinstance(name, str):
        raise RequestError(Code.BAD_ARGUMENT, f"A primary key names columns, not {shown(name)}.", where=where)
    column = schema.field(name, where)
    if isinstance(column.dtype, NO_KEY):
        raise RequestError(Code.TYPE_MISMATCH, f"A primary key cannot be of type {column.dtype}.", where=where)
    return column.name


def _column(raw: Any, where: str) -> Field:
    if not isinstance(raw, dict):
        raise RequestError(Code.BAD_ARGUMENT, "A column is an object with 'name' and 'type'.", where=where)
    refuse_unknown(raw, _COLUMN_MEMBERS, where)
    for name in ("name", "type"):
        if not isinstance(raw.get(name), str):
            raise RequestError(Code.MISSING_ARGUMENT, f"A column needs a text {name!r}.", where=f"{where}.{name}")
    nullable = raw.get("nullable", True)
    if not isinstance(nullable, bool):
        raise RequestError(Code.BAD_ARGUMENT, "'nullable' must be true or false.", where=f"{where}.nullable")
    dtype = parse_dtype(raw["type"], f"{where}.type")
    default = raw.get("default")
    return Field(
        name=check_identifier(raw["name"], f"{where}.name"),
        dtype=dtype,
        nullable=nullable,
        default=None if default is None else default_sql(default, dtype, f"{where}.default"),
    )


def refuse_unknown(members: dict[str, Any], known: set[str], where: str) -> None:
    """Refuse unknown members of an object; raises `unknown_argument`."""
    for name in members:
        if name not in known:
            raise RequestError(Code.UNKNOWN_ARGUMENT, f"There is no member {name!r} here.", where=f"{where}.{name}")
