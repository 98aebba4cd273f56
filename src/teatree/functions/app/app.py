"""An app: a registry of functions by name. It starts nothing."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, overload

from attrs import define

from teatree.contracts.errors import Code, OperatorError, RequestError
from teatree.contracts.names import check_app
from teatree.contracts.parts import PartGroup, installed_now
from teatree.contracts.shown import shown
from teatree.functions.app.app_function import AppFunction, FunctionKind, FunctionOptions
from teatree.functions.app.calls.dependencies import Dependencies
from teatree.functions.app.calls.signature import name_of, place_of
from teatree.functions.app.registration import check_name, function_of, make_function
from teatree.functions.app.values.converter import StrictConverter

F = TypeVar("F", bound=Callable[..., Any])
NO_VERSION = "0"
"""The version of an app that names none and that no distribution installs."""
_INTERACTIVE = "__main__"


class App:
    """Functions by name, written as plain Python or SQL; the same object runs them in process and behind the queue."""

    def __init__(self, name: str, *, version: str | None = None) -> None:
        """Begin an app; its version, if none is given, is that of the distribution that installs it."""
        try:
            self.name = check_app(name)
        except RequestError as e:
            raise OperatorError(Code.BAD_APP, e.message, where="App", hint=e.hint) from None
        self._version = version
        self._converter = StrictConverter()
        self._registered: dict[str, _Registered] = {}

    def __repr__(self) -> str:
        return f"App({self.name!r}, {len(self._registered)} functions)"

    @property
    def version(self) -> str:
        """The version that was given, else that of the distribution with its entry point, else "0"."""
        if self._version is None:
            self._version = _installed_version(self.name)
        return self._version

    @property
    def functions(self) -> Mapping[str, AppFunction]:
        """All functions, ready to run; raises `bad_app` for one whose hints cannot be resolved."""
        return MappingProxyType({name: self._resolved(each) for name, each in self._registered.items()})

    @overload
    def mutation(self, function: F, /) -> F: ...

    @overload
    def mutation(
        self,
        *,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        alone: bool = False,
        time_ms_max: int | None = None,
    ) -> Callable[[F], F]: ...

    def mutation(
        self,
        function: Callable[..., Any] | None = None,
        *,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        alone: bool = False,
        time_ms_max: int | None = None,
    ) -> Any:
        """Register a function that changes its model, in the manager's transaction, through a `Write` handle.

        `alone`: it is applied in a separate batch, since others should not wait for it. `time_ms_max`: it may run for
        so long, in place of the model's limit. The function is returned as it is. Raises `bad_app`.
        """
        options = _options(labels, alone=alone, time_ms_max=time_ms_max)
        return self._decorate(FunctionKind.MUTATION, function, name, options, _caller())

    @overload
    def query(self, function: F, /) -> F: ...

    @overload
    def query(
        self,
        *,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        page_size: int | None = None,
        time_ms_max: int | None = None,
    ) -> Callable[[F], F]: ...

    def query(
        self,
        function: Callable[..., Any] | None = None,
        *,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        page_size: int | None = None,
        time_ms_max: int | None = None,
    ) -> Any:
        """Register a function that reads a version through a `Read` handle, or computes without any.

        `page_size`: rows of a page of the Dataset that it returns. The function is returned as it is. Raises `bad_app`.
        """
        options = _options(labels, page_size=page_size, time_ms_max=time_ms_max)
        return self._decorate(FunctionKind.QUERY, function, name, options, _caller())

    def sql(self, folder: str | Path) -> None:
        """Register the functions of a folder's `.sql` files; a relative path is beside the calling module's file.

        Each file begins with a comment: kind, name and parameters as in Python, then what it does. Raises `bad_app`.
        """
        from teatree.functions.app.sql.sql_functions import read_folder  # noqa: PLC0415  DuckDB's parser, only for SQL

        module = _caller_file()
        place = module.parent / folder if module else Path(folder).absolute()
        for found in read_folder(place, self._converter):
            signature = found.signature
            name = check_name(signature.name, signature.place)
            _check_options(name, found.options, signature.place)
            made = function_of(found.kind, Dependencies(signature, {}), found.doc, found.options, self._converter)
            self._add(_Registered(found.kind, signature.call, name, found.options, {}, signature.place, made))

    def _decorate(
        self,
        kind: FunctionKind,
        function: Callable[..., Any] | None,
        name: str | None,
        options: FunctionOptions,
        names: Mapping[str, Any],
    ) -> Callable[..., Any]:
        def register(call: Callable[..., Any]) -> Callable[..., Any]:
            if not callable(call):
                message = f"A {kind} is a function, not {shown(call)}."
                raise OperatorError(Code.BAD_APP, message, where=self.name, hint=f"A name: @app.{kind}(name=...).")
            place = place_of(call)
            found = check_name(name if name is not None else name_of(call), place)
            _check_options(found, options, place)
            self._add(_Registered(kind, call, found, options, names, place))
            return call

        return register if function is None else register(function)

    def _add(self, new: _Registered) -> None:
        before = self._registered.get(new.name)
        if before is not None and not new.replaces(before):
            message = f"{new.name} is registered twice: at {before.place} and at {new.place}."
            raise OperatorError(Code.BAD_APP, message, where=new.place, hint="Give one another name.")
        with suppress(NameError):  # it can name what its module defines further down: it is resolved when it is used
            self._resolve(new)
        self._registered[new.name] = new

    def _resolve(self, found: _Registered) -> AppFunction:
        if found.function is None:
            found.function = make_function(
                found.kind, found.call, found.name, found.options, found.names, self._converter
            )
            found.names = {}
        return found.function

    def _resolved(self, found: _Registered) -> AppFunction:
        try:
            return self._resolve(found)
        except NameError as e:
            message = f"The hints of {found.name} cannot be resolved: {e}."
            raise OperatorError(Code.BAD_APP, message, where=found.place, hint="Import what they name.") from e


@define(eq=False)
class _Registered:
    kind: FunctionKind
    call: Callable[..., Any]
    name: str
    options: FunctionOptions
    names: Mapping[str, Any]
    """The names of the place where it was registered, until it is resolved."""
    place: str
    function: AppFunction | None = None

    def replaces(self, before: _Registered) -> bool:
        """Return whether it is the same function, defined again: in a notebook a cell is run many times."""
        ours, theirs = self.call, before.call
        return getattr(ours, "__module__", None) == _INTERACTIVE == getattr(theirs, "__module__", None) and getattr(
            ours, "__qualname__", None
        ) == getattr(theirs, "__qualname__", None)


def _caller() -> Mapping[str, Any]:
    """Return the names of the place that calls a method of the app; hints can name what a function defines."""
    frame = inspect.currentframe()
    outer = frame.f_back.f_back if frame and frame.f_back else None
    if outer is None or outer.f_locals is outer.f_globals:
        return {}
    return dict(outer.f_locals)


def _caller_file() -> Path | None:
    """Return the file of the module that calls a method of the app; None in a notebook."""
    frame = inspect.currentframe()
    outer = frame.f_back.f_back if frame and frame.f_back else None
    name = outer.f_globals.get("__file__") if outer else None
    return Path(name) if isinstance(name, str) else None


def _options(
    labels: Mapping[str, str] | None,
    *,
    alone: bool = False,
    time_ms_max: int | None = None,
    page_size: int | None = None,
) -> FunctionOptions:
    return FunctionOptions(MappingProxyType(dict(labels or {})), alone, time_ms_max, page_size)


def _check_options(name: str, options: FunctionOptions, place: str) -> None:
    for option, value in (("time_ms_max", options.time_ms_max), ("page_size", options.page_size)):
        if value is not None and (type(value) is not int or value < 1):
            message = f"{option} of {name} is a whole number of at least 1, not {value!r}."
            raise OperatorError(Code.BAD_APP, message, where=place)
    if not all(isinstance(each, str) for pair in options.labels.items() for each in pair):
        raise OperatorError(Code.BAD_APP, f"The labels of {name} are texts by texts.", where=place)


def _installed_version(name: str) -> str:
    found = installed_now(PartGroup.APPS).get(name, [])
    versions = {entry.dist.version for entry in found if entry.dist is not None}
    return versions.pop() if len(versions) == 1 else NO_VERSION
