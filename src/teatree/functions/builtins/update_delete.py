"""The functions `update` and `delete`: rows in which all of `where` holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from teatree.contracts.errors import Code, RequestError
from teatree.contracts.types.schema import Field, Schema
from teatree.contracts.types.table_info import TableInfo
from teatree.datasets.ddl import quote
from teatree.functions.arguments import Call, to_tables
from teatree.functions.handles import ROWS_VIEW, SqlAccess
from teatree.functions.traits import Function, Traits

if TYPE_CHECKING:
    import pyarrow as pa


def update(db: SqlAccess, call: Call) -> dict[str, int]:
    """Set columns in the rows in which all of `where` holds.

    table: The table.
    set: The new values, by column.
    where: Values by column that a row must have, all of them; NULL equals NULL. Every row if left out.
    Result: `rows`: how many were changed.
    """
    table = db.table(call.text("table"))
    new = call.members("set")
    where = call.members("where", {})
    call.finish()
    if not new:
        raise RequestError(Code.MISSING_ARGUMENT, "update needs at least one column to set.", where="set")
    view, names = _one_row(table, {"set": new, "where": where})
    pairs = list(zip(table.require(list(new), "set"), names["set"], strict=True))
    targets = ", ".join(f"{quote(column)} = {ROWS_VIEW}.{quote(name)}" for column, name in pairs)
    condition = _condition(table, where, names["where"])
    changed = db.run_with(view, f"UPDATE {quote(table.name)} AS t SET {targets} FROM {ROWS_VIEW} WHERE {condition}")
    db.changed(table.name)
    return {"rows": _count(changed)}


def delete(db: SqlAccess, call: Call) -> dict[str, int]:
    """Delete the rows in which all of `where` holds.

    table: The table.
    where: Values by column that a row must have, all of them; NULL equals NULL. `{}` deletes every row.
    Result: `rows`: how many were deleted.
    """
    table = db.table(call.text("table"))
    where = call.members("where")
    call.finish()
    view, names = _one_row(table, {"where": where})
    condition = _condition(table, where, names["where"])
    changed = db.run_with(view, f"DELETE FROM {quote(table.name)} AS t USING {ROWS_VIEW} WHERE {condition}")
    db.changed(table.name)
    return {"rows": _count(changed)}


def _one_row(table: TableInfo, groups: dict[str, dict[str, Any]]) -> tuple[pa.Table, dict[str, list[str]]]:
    """Return a table of one row that holds the values of all groups, typed as their columns, and its columns' names."""
    import pyarrow as pa  # noqa: PLC0415

    arrays: list[Any] = []
    names: dict[str, list[str]] = {}
    for group, values in groups.items():
        fields = [table.schema.field(name, f"{group}.{name}") for name in values]
        _refuse_repeated_names(fields, list(values), group)
        schema = Schema(tuple(Field(f.name, f.dtype) for f in fields))
        names[group] = [f"{group}_{place}" for place in range(len(fields))]
        if fields:
            part = _one_row_part(dict(zip(schema.names, values.values(), strict=True)), schema, group)
            arrays.extend(part.column(name) for name in schema.names)
    labels = [name for group in names.values() for name in group]
    if not labels:
        return pa.table({"_": pa.array([True])}), names
    return pa.table(dict(zip(labels, arrays, strict=True))), names


def _refuse_repeated_names(fields: Sequence[Field], names: Sequence[str], group: str) -> None:
    for place, field in enumerate(fields):
        if field in fields[:place]:
            message = f"The column {field.name!r} is given twice."
            raise RequestError(Code.DUPLICATE_KEY, message, where=f"{group}.{names[place]}")


def _one_row_part(values: dict[str, Any], schema: Schema, group: str) -> pa.Table:
    try:
        return to_tables([values], schema, group)[0]
    except RequestError as e:  # the sender gave an object, not a list
        where = e.where.replace(f"{group}[0]", group, 1) if e.where else group
        raise RequestError(e.code, e.message, where=where, hint=e.hint) from None


def _condition(table: TableInfo, where: dict[str, Any], names: list[str]) -> str:
    columns = table.require(list(where), "where")
    tests = [
        f"t.{quote(column)} IS NOT DISTINCT FROM {ROWS_VIEW}.{quote(name)}"
        for column, name in zip(columns, names, strict=True)
    ]
    return " AND ".join(tests) or "true"


def _count(result: list[tuple[Any, ...]]) -> int:
    return int(result[0][0]) if result else 0


def _moves_keys(_: bytes) -> bool:
    return True


FUNCTIONS = (
    Function("update", update, Traits(makes_rows=True, moves_keys=_moves_keys)),
    Function("delete", delete),
)
