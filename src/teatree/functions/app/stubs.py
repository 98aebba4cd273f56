"""An app's functions as methods, without their handles and dependencies: what calls them somewhere else."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from teatree.functions.app.app import App
from teatree.functions.app.app_function import AppFunction

CallFunction = Callable[[AppFunction, dict[str, Any]], Any]
"""Calls a function somewhere with the arguments of a request, Python values of the hinted types."""


class Stubs:
    """Functions by name, with the signatures and documentation of their requests, as an editor shows them."""

    def __init__(self, app: App, call: CallFunction) -> None:
        self.__app = app
        self.__call = call

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)
        found = self.__app.functions.get(name)
        if found is None:
            raise AttributeError(f"The app {self.__app.name} has no function {name!r}.", name=name, obj=self)
        return _stub(found, self.__call)

    def __dir__(self) -> list[str]:
        return sorted(self.__app.functions)

    def __repr__(self) -> str:
        return f"<functions of {self.__app.name}>"


def _stub(function: AppFunction, call: CallFunction) -> Callable[..., Any]:
    signature = _signature(function)

    def stub(**arguments: Any) -> Any:
        return call(function, arguments)

    stub.__name__ = stub.__qualname__ = function.name
    stub.__doc__ = function.doc
    stub.__signature__ = signature  # type: ignore[attr-defined]
    return stub


def _signature(function: AppFunction) -> inspect.Signature:
    return inspect.Signature(
        [
            inspect.Parameter(
                parameter.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if parameter.is_required else parameter.default,
                annotation=parameter.hint,
            )
            for parameter in function.parameters
        ],
        return_annotation=function.returns,
    )
