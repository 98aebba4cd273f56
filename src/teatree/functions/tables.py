"""Tables as requests describe them, and their creation in an open transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from teatree.contracts.errors import Code, RequestError
from teatree.contracts.names import check_identifier, check_table
from teatree.contracts.shown import shown
from teatree.contracts.types.dtypes import Array, Interval, List, Map, Struct
from teatree.contracts.types.schema import Field, Schema, parse_dtype
from teatree.contracts.types.table_info import TableInfo
from teatree.datasets.defaults import default_sql
from teatree.functions.handles import WriteAccess

TABLES_MAX = 1_000
"""Tables of one model: every manifest names them all."""
TABLES_CHARS_MAX = 8_000_000
"""Characters of the descriptions of all tables: every manifest holds them, and each version writes one."""
NO_KEY = (Array, Interval, List, Map, Struct)
"""Types that no key can have: DuckDB cannot index them."""
_COLUMN_MEMBERS = {"name", "type", "nullable", "default"}
TABLE_MEMBERS = {"table", "columns", "primary_key", "if_not_exists"}


def make_table(db: WriteAccess, members: dict[str, Any], where: str) -> bool:
    """Create the table that `create_table`'s members describe; return False if it exists and may exist."""
    name = check_table(members.get("table"), f"{where}table")
    columns = members.get("columns")
    if not isinstance(columns, list) or not columns:
        raise RequestError(Code.MISSING_ARGUMENT, "A table needs at least one column.", where=f"{where}columns")
    schema = Schema(tuple(read_column(raw, f"{where}columns[{place}]") for place, raw in enumerate(columns)))
    key = members.get("primary_key") or []
    if not isinstance(key, list):
        raise RequestError(Code.BAD_ARGUMENT, "'primary_key' must be a list of columns.", where=f"{where}primary_key")
    return add_table(db, name, schema, key, where, exists_ok=bool(members.get("if_not_exists")))


def add_table(
    db: WriteAccess, name: str, schema: Schema, key: Sequence[object], where: str, *, exists_ok: bool
) -> bool:
    """Create a table of these columns; return False if it exists and may exist."""
    primary_key = tuple(_key_column(schema, name, f"{where}primary_key[{place}]") for place, name in enumerate(key))
    if db.find_table(name) is not None:
        if exists_ok:
            return False
        raise RequestError(Code.TABLE_EXISTS, f"There is a table {name!r} already.", where=f"{where}table")
    if len(db.tables()) >= TABLES_MAX:
        raise RequestError(Code.OUT_OF_RANGE, f"A model has at most {TABLES_MAX} tables.", where=f"{where}table")
    db.create_table(name, schema, primary_key)
    made(db, name)
    return True


def made(db: WriteAccess, name: str) -> TableInfo:
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


def _key_column(schema: Schema, name: object, where: str) -> str:
    if not isinstance(name, str):
        raise RequestError(Code.BAD_ARGUMENT, f"A primary key names columns, not {shown(name)}.", where=where)
    column = schema.field(name, where)
    if isinstance(column.dtype, NO_KEY):
        raise RequestError(Code.TYPE_MISMATCH, f"A primary key cannot be of type {column.dtype}.", where=where)
    return column.name


def read_column(raw: Any, where: str) -> Field:
    """Return the column that an object describes; `where` is its place in the request."""
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
