"""What `create_model` takes: options, limits within the operator's, and the first tables."""

from __future__ import annotations

from typing import Any

import attrs
from attrs import frozen

from teatree.contracts.errors import Code, RequestError
from teatree.contracts.formats.manifest import ModelOptions
from teatree.contracts.names import check_model
from teatree.contracts.settings import LimitSettings
from teatree.contracts.shown import shown
from teatree.functions.arguments import Call
from teatree.functions.tables import TABLE_MEMBERS, refuse_unknown

ENGINE_DEFAULT = ModelOptions().engine
STORAGE_VERSIONS = ("v1.2.0", "v1.3.0", "v1.4.0", "v1.5.0", "v2.0.0", "latest")
"""The oldest DuckDB that must be able to open a version."""
_OPERATORS_LIMITS = {
    "remember_days",
    "remember_rows_max",
    "kill_tries_max",
    "disk_free_bytes_min",
    "stuck_ms_max",
    "resident_bytes_max",
}
"""Limits that protect others than the model's users: only the operator sets them."""
_LIMITS = {a.name for a in attrs.fields(LimitSettings)} - _OPERATORS_LIMITS
_LIMITS_MIN = {
    "memory_bytes_max": 64_000_000,
    "unaccounted_bytes_max": 64_000_000,
    "read_ahead_bytes_max": 1_000_000,
    "page_bytes_max": 1_000,
}
"""Values below which a model could not work; 1 for the others."""


@frozen
class ForkSource:
    """The model that a new one begins as a fork of, and its version; the newest one if None."""

    model: str
    version: int | None


@frozen
class ModelArguments:
    """What a new model is to be."""

    options: ModelOptions
    tables: list[dict[str, Any]]
    fork_source: ForkSource | None


def read_model_arguments(call: Call) -> ModelArguments:
    """Return the arguments of a `create_model`; a fork has the tables and the storage version of its origin."""
    engine = _engine(call.text("engine", ENGINE_DEFAULT), call.context.engines)
    storage_version = call.choice("storage_version", STORAGE_VERSIONS, None)
    app = call.text("app", None)
    if app is not None:
        call.context.check_app(app)
    limits = call.members("limits", {})
    tables = call.items("tables", [])
    fork_source = _fork_source(call.members("from", None))
    call.finish()
    if fork_source is not None and tables:
        raise RequestError(
            Code.BAD_ARGUMENT,
            "A fork has the tables of its origin.",
            where="tables",
            hint="Send `create_table` when it is there.",
        )
    for name, value in limits.items():
        _check_limit(name, value, call.context.limits)
    for place, table in enumerate(tables):
        where = f"tables[{place}]"
        if not isinstance(table, dict):
            raise RequestError(Code.BAD_ARGUMENT, "A table is an object, as create_table takes it.", where=where)
        refuse_unknown(table, TABLE_MEMBERS, where)
    options = ModelOptions(engine=engine, storage_version=storage_version, app=app, limits=dict(limits))
    return ModelArguments(options, tables, fork_source)


def _engine(name: str, names: tuple[str, ...]) -> str:
    if name not in names:
        raise RequestError(
            Code.BAD_ARGUMENT, f"'engine' is one of {', '.join(names)}; not {shown(name)}.", where="engine"
        )
    return name


def _fork_source(members: dict[str, Any] | None) -> ForkSource | None:
    if members is None:
        return None
    refuse_unknown(members, {"model", "version"}, "from")
    version = members.get("version")
    if version is not None and (not isinstance(version, int) or isinstance(version, bool)):
        raise RequestError(Code.BAD_ARGUMENT, "A version is a whole number.", where="from.version")
    if version is not None and not 0 < version < 2**63:
        raise RequestError(Code.OUT_OF_RANGE, f"There can be no version {version}.", where="from.version")
    return ForkSource(check_model(members.get("model")), version)


def _check_limit(name: str, value: Any, operators: LimitSettings) -> None:
    where = f"limits.{name}"
    if name not in _LIMITS:
        raise RequestError(
            Code.UNKNOWN_ARGUMENT,
            f"There is no limit {name!r} that a model can have.",
            where=where,
            hint=f"There are: {', '.join(sorted(_LIMITS))}.",
        )
    if not isinstance(value, int) or isinstance(value, bool):
        raise RequestError(Code.BAD_ARGUMENT, "A limit is a whole number.", where=where)
    low, high = _LIMITS_MIN.get(name, 1), getattr(operators, name)
    if not low <= value <= high:
        raise RequestError(
            Code.OUT_OF_RANGE,
            f"{name!r} is {low} to {high}, not {value}.",
            where=where,
            hint="The most is what the operator allows.",
        )
