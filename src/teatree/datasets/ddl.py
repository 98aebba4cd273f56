"""SQL that makes and changes tables; every name passes `quote`."""

from __future__ import annotations

from collections.abc import Sequence

from teatree.contracts.errors import Code, RequestError
from teatree.contracts.names import OWN_SCHEMA, check_identifier, check_table
from teatree.contracts.types.schema import Field, Schema

_OLD = f"{OWN_SCHEMA}_old"
"""The name of a table while it is made anew: no user's table can have it."""


MAIN_SCHEMA = "main"
"""Where tables lie that are named without a schema."""


def quote(identifier: str) -> str:
    """Return a name as SQL: the one place that does."""
    return '"' + identifier.replace('"', '""') + '"'


def quote_literal(text: str) -> str:
    """Return a text as an SQL string."""
    return "'" + text.replace("'", "''") + "'"


def table_label(schema: str, table: str) -> str:
    """Return the one name that stands for a table in a version: its own, or with its schema outside of `main`.

    Names that hold a dot themselves are quoted, so that no two tables share one.
    """
    if "." in schema or "." in table:
        return f"{quote(schema)}.{quote(table)}"
    return table if schema == MAIN_SCHEMA else f"{schema}.{table}"


def create_table_sql(
    table: str, schema: Schema, primary_key: Sequence[str] = (), *, if_not_exists: bool = False
) -> str:
    """Return CREATE TABLE; raises `bad_name`, `bad_argument`, or `unknown_column` for a key that names none."""
    check_table(table)
    if not len(schema):
        raise RequestError(Code.BAD_ARGUMENT, "A table has at least one column.", where="columns")
    parts = [_column_sql(column, f"columns[{i}]") for i, column in enumerate(schema)]
    keys = [schema.field(name, f"primary_key[{i}]").name for i, name in enumerate(primary_key)]
    if len(set(keys)) != len(keys):
        raise RequestError(Code.BAD_ARGUMENT, "The primary key names a column twice.", where="primary_key")
    if keys:
        parts.append(f"PRIMARY KEY ({', '.join(map(quote, keys))})")
    return f"CREATE TABLE {'IF NOT EXISTS ' if if_not_exists else ''}{quote(table)} ({', '.join(parts)})"


def add_column_sql(table: str, column: Field) -> list[str]:
    """Return the statements that add a column in place; DuckDB adds NOT NULL only afterwards."""
    nullable = Field(column.name, column.dtype, nullable=True, default=column.default)
    statements = [f"ALTER TABLE {quote(check_table(table))} ADD COLUMN {_column_sql(nullable, 'add')}"]
    if not column.nullable:
        statements.append(f"ALTER TABLE {quote(table)} ALTER COLUMN {quote(column.name)} SET NOT NULL")
    return statements


def rebuild_sql(table: str, schema: Schema, primary_key: Sequence[str], kept: Sequence[str]) -> list[str]:
    """Return the statements that make a table anew, with the `kept` columns of its rows in their order."""
    columns = ", ".join(map(quote, kept))
    return [
        f"ALTER TABLE {quote(check_table(table))} RENAME TO {quote(_OLD)}",
        create_table_sql(table, schema, primary_key),
        f"INSERT INTO {quote(table)} ({columns}) SELECT {columns} FROM {quote(_OLD)}",
        f"DROP TABLE {quote(_OLD)}",
    ]


def drop_column_sql(table: str, column: str) -> str:
    """Return the statement that drops a column."""
    return f"ALTER TABLE {quote(check_table(table))} DROP COLUMN {quote(column)}"


def rename_column_sql(table: str, column: str, name: str) -> str:
    """Return the statement that renames a column."""
    check_identifier(name, "rename")
    return f"ALTER TABLE {quote(check_table(table))} RENAME COLUMN {quote(column)} TO {quote(name)}"


def _column_sql(column: Field, where: str) -> str:
    name = quote(check_identifier(column.name, f"{where}.name"))
    null = "" if column.nullable else " NOT NULL"
    default = "" if column.default is None else f" DEFAULT {column.default}"
    return f"{name} {column.dtype}{null}{default}"
