"""Arguments given as `--name value`: texts for parameters that take texts, else JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from teatree.cli.exits import usage
from teatree.cli.requests.json_args import read_value

if TYPE_CHECKING:
    from teatree.client.calls.function_info import FunctionInfo
    from teatree.client.model import Model

_DEPTH_MAX = 20


async def function_info(model: Model, function: str, timeout_ms: int) -> FunctionInfo | None:
    """Return the description of a built-in function or of one of a model's app; None for one that it lacks."""
    return built_in(function) or (await model.functions(timeout_ms=timeout_ms)).find(function)


def built_in(function: str) -> FunctionInfo | None:
    """Return the description of a built-in function, None if there is none of this name."""
    from teatree.client.calls.function_info import read_function_info  # noqa: PLC0415 - only for help and pairs
    from teatree.functions.built_in_text import describe_built_in  # noqa: PLC0415
    from teatree.functions.registry import built_in_functions  # noqa: PLC0415

    found = built_in_functions().find(function)
    return None if found is None else read_function_info(describe_built_in(found))


def merged(members: Mapping[str, Any], pairs: Mapping[str, str], function: FunctionInfo | None) -> dict[str, Any]:
    """Return arguments given as JSON and as pairs together; raises `usage` for a name that is given twice.

    `function` is its description; without one pairs are JSON where they can be.
    """
    found = dict(members)
    for flag, text in pairs.items():
        name = flag.replace("-", "_")
        if name in found:
            raise usage(f"The argument {name!r} is given twice.")
        found[name] = text if function is not None and _takes_text(function.schema, name) else read_value(text)
    return found


def _takes_text(schema: Mapping[str, Any], name: str) -> bool:
    """Return whether a parameter takes texts, and nothing else but null."""
    found = schema.get("properties", {}).get(name)
    return found is not None and _is_text(found, schema.get("$defs", {}), _DEPTH_MAX)


def _is_text(schema: Any, definitions: Mapping[str, Any], depth: int) -> bool:
    if not isinstance(schema, dict) or not depth:
        return False
    if "$ref" in schema:
        return _is_text(definitions.get(str(schema["$ref"]).rpartition("/")[2]), definitions, depth - 1)
    for key in ("anyOf", "oneOf"):
        if key in schema:
            forms = [form for form in schema[key] if form != {"type": "null"}]
            return bool(forms) and all(_is_text(form, definitions, depth - 1) for form in forms)
    if "enum" in schema:
        return all(value is None or isinstance(value, str) for value in schema["enum"])
    if "const" in schema:
        return isinstance(schema["const"], str)
    kinds = schema.get("type")
    kinds = [kinds] if isinstance(kinds, str) else kinds or []
    return "string" in kinds and set(kinds) <= {"string", "null"}
