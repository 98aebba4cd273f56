"""What a model's app offers: the answer to a direct read of `functions`, and its names in the model's folder."""

from __future__ import annotations

from typing import Any

import structlog

from teatree.functions.registry import Registry
from teatree.storage.model_folder import ModelFolder


def keep_function_names(folder: ModelFolder, functions: Registry) -> None:
    """Write the names of the app's functions down, for shells that complete them."""
    names = sorted(function.name for function in functions.functions.values() if function.describe is not None)
    path = folder.function_names
    if not names and not path.exists():
        return
    try:
        path.write_text("".join(f"{name}\n" for name in names))
    except OSError as e:  # they are a convenience: a full disk is reported by what needs it
        structlog.get_logger().info("the names of the app's functions were not written", error=str(e))


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
