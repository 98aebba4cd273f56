"""The registry: the functions of a model, by name. It is made once in a process and passed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import import_module

from attrs import evolve, frozen

from teatree.contracts.errors import AppError, Code, RequestError
from teatree.contracts.formats.provenance import AppCode
from teatree.functions import builtins
from teatree.functions.traits import Function, Nature, Traits

_NO_TRAITS = Traits()
_BUILTINS = (
    "model",
    "tables",
    "append",
    "replace",
    "upsert",
    "update_delete",
    "load",
    "restore",
    "sql",
    "query",
    "archive",
)
"""The files in `builtins` that define `FUNCTIONS`, in the order of their documentation."""


@frozen
class ModelApp:
    """The app of a model."""

    name: str
    code: AppCode | None
    """The code of it that was used last; None if none was yet."""
    error: AppError | None = None
    """Why its functions cannot be called; None if they can."""


@frozen
class Registry:
    """Functions by name."""

    functions: Mapping[str, Function]
    app: ModelApp | None = None
    """The model's app, if it has one; its functions are among these unless it has an error."""

    @property
    def app_code(self) -> AppCode | None:
        """The code of the app whose functions these are; None if there is none that can be called."""
        return None if self.app is None or self.app.error is not None else self.app.code

    @classmethod
    def of(cls, functions: Iterable[Function]) -> Registry:
        """Return a registry of functions; raises `ValueError` for two of one name."""
        found: dict[str, Function] = {}
        for function in functions:
            if function.name in found:
                raise ValueError(f"There are two functions {function.name!r}.")
            found[function.name] = function
        return cls(found)

    def extended(self, *functions: Function) -> Registry:
        """Return a registry with further functions, which replace those of the same names."""
        return evolve(self, functions={**self.functions, **{function.name: function for function in functions}})

    def find(self, name: str) -> Function | None:
        """Return a function by its name, None if there is none."""
        return self.functions.get(name)

    def require(self, name: str) -> Function:
        """Return a function by its name; raises `unknown_function`, or the error of an app that may have it."""
        found = self.find(name)
        if found is None:
            if self.app is not None and self.app.error is not None:
                raise self.app.error.with_traceback(None)
            raise RequestError(
                Code.UNKNOWN_FUNCTION,
                f"There is no function {name!r}.",
                where="function",
                hint=f"There are: {', '.join(sorted(self.functions))}.",
            )
        return found

    def traits(self, name: str) -> Traits:
        """Return the traits of a function by its name; the defaults for a name that no function has."""
        found = self.functions.get(name)
        return _NO_TRAITS if found is None else found.traits

    def with_nature(self, nature: Nature) -> tuple[str, ...]:
        """Return the names of the functions of one nature, sorted."""
        return tuple(sorted(f.name for f in self.functions.values() if f.traits.nature is nature))


def built_in_functions() -> Registry:
    """Return the functions that every model has."""
    modules = [import_module(f"{builtins.__name__}.{name}") for name in _BUILTINS]
    return Registry.of(function for module in modules for function in module.FUNCTIONS)
