"""The functions that begin and end an incarnation: `create_model`, `drop_model`."""

from __future__ import annotations

from typing import Any

from teatree.functions.arguments import Call
from teatree.functions.model_arguments import ModelArguments, read_model_arguments
from teatree.functions.traits import Function, Nature, Traits


def create_model(_: Any, call: Call) -> ModelArguments:
    """Create the model, with its first tables.

    The first request of an incarnation; every request before it is rejected as `unknown_model`.

    engine: The engine that holds the model; there is `duckdb`.
    storage_version: The oldest DuckDB that must be able to open the model's files. `latest` is readable by the
        manager's own DuckDB only; the manager's choice if left out.
    app: The [app](apps.md) whose functions the model has, by the name of its entry point. None if left out; a fork then
        has its origin's.
    limits: Limits of this model, none above the operator's: members of [limits](settings.md#limits) by their short
        names, `memory_bytes_max` for example.
    tables: The first tables, each an object as `create_table` takes it.
    from: `model` and, if not the newest, `version`: the new model begins as a fork of that version. A fork has the
        tables and the storage version of its origin.
    Result: `goal_model_id`, `tables` (their names); for a fork `from`, the `model` and `version` it is based on.
    """
    return read_model_arguments(call)


def use_app(_: Any, call: Call) -> str | None:
    """Make an app's functions those of the model, in place of its former app's.

    Requests before it in the log meet the code that the model's manager has loaded, those after it the code that is
    installed now: the manager leaves after it, and the next one loads the app. So it also takes a new version into use,
    under the same name. What was wrong with an app's import is the error of each call of its functions (`bad_app`).

    app: The name of an app's entry point; `null` for none.
    Result: `app`: the name.
    """
    app = call.nullable_text("app")
    call.finish()
    if app is not None:
        call.context.check_app(app)
    return app


def drop_model(_: Any, call: Call) -> None:
    """End the model's incarnation.

    Its versions stay readable for as long as they are retained; the name can be used again.

    Result: `{}`.
    """
    call.finish()


FUNCTIONS = (
    Function("create_model", create_model, Traits(Nature.BEGINS, alone=True)),
    Function("use_app", use_app, Traits(Nature.CONFIGURES, alone=True)),
    Function("drop_model", drop_model, Traits(Nature.ENDS, alone=True)),
)
