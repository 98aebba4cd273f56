"""What requests to a model can call: the answer to a direct read of `functions`."""

from __future__ import annotations

from typing import Any

from teatree.functions.built_in_text import describe_built_in
from teatree.functions.registry import Registry


def list_functions(model: str, functions: Registry) -> dict[str, Any]:
    """Return the app of a model and its functions, with the JSON Schema of their arguments, and the built-in ones.

    An app that cannot be used has an `error` in place of functions.
    """
    found: dict[str, Any] = {"model": model}
    app = functions.app
    if app is not None:
        found["app"] = {"name": app.name}
        if app.code is not None:
            found["app"] |= {"version": app.code.version, "code_hash": app.code.code_hash}
        if app.error is not None:
            found["error"] = app.error.to_dict()
    every = functions.functions.values()
    described = [function.describe() for function in every if function.describe is not None]
    built_ins = [describe_built_in(function) for function in every if function.describe is None]
    return {**found, "functions": described, "built_ins": built_ins}
