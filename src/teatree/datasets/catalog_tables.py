"""The user tables of an open database, read out of DuckDB's catalog.

All of them cost one scan of the catalog; one of them costs a look-up. What cannot be described (a type that Teatree
does not have) is a `TableInfo` with a fault, never an error: a file can hold what no request of ours made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from teatree.contracts.errors import RequestError
from teatree.contracts.types.schema import Field, Schema, parse_read_dtype
from teatree.contracts.types.table_info import TableInfo
from teatree.datasets.ddl import quote

if TYPE_CHECKING:
    import duckdb

Column = tuple[str, str, bool, str | None]
"""Name, type, whether it is nullable, default."""
_HERE = "database_name = current_database() AND schema_name = 'main'"


def read_tables(con: duckdb.DuckDBPyConnection) -> list[TableInfo]:
    """Return the user tables of the current database, by name."""
    columns: dict[str, list[Column]] = {
        name: []
        for (name,) in con.execute(
            f"SELECT table_name FROM duckdb_tables() WHERE {_HERE} AND NOT internal ORDER BY table_name"
        ).fetchall()
    }
    for table, *column in con.execute(
        "SELECT table_name, column_name, data_type, is_nullable, column_default FROM duckdb_columns() "
        f"WHERE {_HERE} AND NOT internal ORDER BY table_name, column_index"
    ).fetchall():
        if table in columns:  # else it is a view's
            columns[table].append(tuple(column))
    keys = _primary_keys(con)
    return [_described(name, found, keys.get(name, ())) for name, found in columns.items()]


def read_table(con: duckdb.DuckDBPyConnection, table: str) -> TableInfo:
    """Return one user table, found as DuckDB finds it; the table must be there."""
    rows = con.execute(
        'SELECT name, type, NOT "notnull", dflt_value, pk FROM pragma_table_info(?) ORDER BY cid',
        [f"main.{quote(table)}"],
    ).fetchall()
    key = tuple(row[0] for row in rows if row[4])
    if len(key) > 1:  # the order of the columns is not the key's
        key = _primary_keys(con)[table]
    return _described(table, [row[:4] for row in rows], key)


def _primary_keys(con: duckdb.DuckDBPyConnection) -> dict[str, tuple[str, ...]]:
    rows = con.execute(
        "SELECT table_name, constraint_column_names FROM duckdb_constraints() "
        f"WHERE {_HERE} AND constraint_type = 'PRIMARY KEY'"
    ).fetchall()
    return {table: tuple(names) for table, names in rows}


def _described(table: str, columns: Sequence[Column], key: tuple[str, ...]) -> TableInfo:
    try:
        fields = tuple(
            Field(name, parse_read_dtype(kind, name), nullable=nullable, default=_default(default))
            for name, kind, nullable, default in columns
        )
        return TableInfo(table, Schema(fields), key)
    except RequestError as e:
        place = f" (column {e.where!r})" if e.where else ""
        return TableInfo(table, Schema(()), (), fault=f"{e.message}{place}")


def _default(text: str | None) -> str | None:
    return None if text is None or text.upper() == "NULL" else text
