"""The functions of one model: the built-in ones, and those of its app."""

from __future__ import annotations

from attrs import evolve

from teatree.contracts.errors import AppError, Code
from teatree.contracts.formats.provenance import AppCode
from teatree.functions.app.engine_function import engine_function
from teatree.functions.app.loading import LoadedApp
from teatree.functions.registry import ModelApp, Registry


def with_app(built_ins: Registry, loaded: LoadedApp, recorded: AppCode | None, *, may_change: bool = False) -> Registry:
    """Return the functions of a model with an app, of which the code `recorded` was used last.

    Without `may_change` other code under its version is refused: then the calls of all functions of the app fail.
    """
    error = loaded.error or (None if may_change else _changed(loaded, recorded))
    if error is not None or loaded.app is None or loaded.code is None:
        return evolve(built_ins, app=ModelApp(loaded.name, recorded, error))
    functions = [engine_function(loaded.code, function) for function in loaded.app.functions.values()]
    return evolve(built_ins.extended(*functions), app=ModelApp(loaded.name, loaded.code))


def _changed(loaded: LoadedApp, recorded: AppCode | None) -> AppError | None:
    code = loaded.code
    if code is None or recorded is None or (code.name, code.version) != (recorded.name, recorded.version):
        return None
    if code.code_hash == recorded.code_hash:
        return None
    return AppError(
        Code.BAD_APP,
        f"The code of the app {code.name!r} has changed, but not its version {code.version}: the model used"
        f" {recorded.code_hash[:12]}, and {code.code_hash[:12]} is installed.",
        where="function",
        hint="Raise its version and install it again; while it is developed, TEATREE_MANAGER_APP_RELOAD=1 allows this.",
    )
