"""A request's arguments: what its sender wrote, as plain objects and lists to send."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from teatree.client.query import Parameters


def table_args(
    table: str, columns: Mapping[str, str] | Sequence[Mapping[str, Any]], primary_key: Sequence[str] | None
) -> dict[str, Any]:
    """Return the arguments that `create_table` takes."""
    objects = (
        [{"name": name, "type": kind} for name, kind in columns.items()]
        if isinstance(columns, Mapping)
        else [dict(column) for column in columns]
    )
    return {"table": table, "columns": objects} | given(primary_key=listed(primary_key))


def given(**args: Any) -> dict[str, Any]:
    """Return the arguments that are not None."""
    return {name: value for name, value in args.items() if value is not None}


def listed(names: Sequence[str] | None) -> list[str] | None:
    """Return names as a list; a single name may be a string."""
    if names is None:
        return None
    return [names] if isinstance(names, str) else list(names)


def plain(parameters: Parameters) -> list[Any] | dict[str, Any] | None:
    """Return a statement's parameters as a plain list or object."""
    if parameters is None:
        return None
    return dict(parameters) if isinstance(parameters, Mapping) else list(parameters)
