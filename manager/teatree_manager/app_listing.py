"""The answer to a direct read of `functions`: what a model's app offers."""

from __future__ import annotations

from typing import Any

from teatree.functions.registry import Registry


def list_functions(model: str, functions: Registry) -> dict[str, Any]:
    """Return the app of a model and its functions, with the JSON Schema of their arguments; why it cannot be used."""
    found: dict[str, Any] = {"model": model}
    app = functions.app
    if app is not None:
        found["app"] = {"name": app.name}
        if app.code is not None:
            found["app"] |= {"version": app.code.version, "code_hash": app.code.code_hash}
        if app.error is not None:
            found["error"] = app.error.to_dict()
    described = [function.describe() for function in functions.functions.values() if function.describe is not None]
    return {**found, "functions": described}
