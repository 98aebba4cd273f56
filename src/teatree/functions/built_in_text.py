"""What a built-in function takes and does, read from its code and its docstring: for documentation and for clients."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

from attrs import frozen

from teatree.datasets.csv.options import CsvOptions
from teatree.functions.traits import Function, Nature

UNCLEAR: Any = object()
"""A default that depends on other things: the meaning of the argument explains it."""
REQUIRED: Any = object()
_NUMBER: dict[str, Any] = {"type": "integer", "minimum": 0}
_SCHEMAS: dict[str, dict[str, Any]] = {
    "text": {"type": "string"},
    "nullable_text": {"type": ["string", "null"]},
    "choice": {"type": "string"},
    "integer": _NUMBER,
    "flag": {"type": "boolean"},
    "members": {"type": "object"},
    "items": {"type": "array"},
    "texts": {"type": "array", "items": {"type": "string"}},
    "rows": {"type": "array", "items": {"type": "object"}},
    "parameters": {"type": ["array", "object"]},
}
"""By method of `Call`: what it takes."""
_TAKEN_BY = frozenset({*_SCHEMAS, "csv_options"})
_KINDS = {Nature.READS: "query", Nature.WRITES: "mutation"}


@frozen
class Argument:
    """One argument of a function."""

    name: str
    method: str
    """The method of `Call` that takes it."""
    default: Any = REQUIRED
    choices: tuple[str, ...] = ()


@frozen
class FunctionText:
    """What a function's docstring states."""

    text: str
    meanings: dict[str, str]
    """Of its arguments, by name."""
    result: str


def function_text(function: Function) -> FunctionText:
    """Return a docstring's parts: after its last empty line an item `name: meaning` for each argument, and `Result`."""
    before, _, after = (inspect.getdoc(function.run) or "").rpartition("\n\n")
    items = re.findall(r"^(\w+): (.*(?:\n .*)*)", after, re.MULTILINE)
    found = {name: " ".join(meaning.split()) for name, meaning in items}
    if not before or "Result" not in found:
        msg = f"{function.name}: its docstring needs what it does, an empty line, and an item `Result: …`"
        raise LookupError(msg)
    result = found.pop("Result")
    return FunctionText(before, found, result)


def arguments_of(run: Callable[..., Any]) -> Iterator[Argument]:
    """Yield the arguments that a function, or one to which it passes its call, takes."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(run)))
    scope: dict[str, Any] = run.__globals__
    for node in sorted((n for n in ast.walk(tree) if isinstance(n, ast.Call)), key=lambda n: (n.lineno, n.col_offset)):
        match node.func:
            case ast.Attribute(value=ast.Name(id="call"), attr=method) if method in _TAKEN_BY:
                yield from _taken(method, node, scope)
            case ast.Name(id=name) if any(isinstance(a, ast.Name) and a.id == "call" for a in node.args):
                yield from arguments_of(scope[name])
            case _:
                pass


def _taken(method: str, node: ast.Call, scope: dict[str, Any]) -> Iterator[Argument]:
    match method:
        case "rows":
            yield Argument("rows", method)
        case "parameters":
            yield Argument("parameters", method, None)
        case "csv_options":
            for option in CsvOptions.__attrs_attrs__:
                yield Argument(option.name, method, option.default)
        case _:
            name, *rest = node.args
            choices: tuple[str, ...] = ()
            if method == "choice":
                choices, *rest = _value(rest[0], scope), *rest[1:]
            default = False if method == "flag" else _default(rest[0], scope) if rest else REQUIRED
            yield Argument(_value(name, scope), method, default, choices)


def _default(node: ast.expr, scope: dict[str, Any]) -> Any:
    try:
        return _value(node, scope)
    except LookupError:
        return UNCLEAR


def _value(node: ast.expr, scope: dict[str, Any]) -> Any:
    if isinstance(node, ast.Name) and node.id in scope:
        return scope[node.id]
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise LookupError(ast.unparse(node)) from None


def describe_built_in(function: Function) -> dict[str, Any]:
    """Return what clients show of a built-in function, as they are given it of functions of apps."""
    text, arguments = function_text(function), list(arguments_of(function.run))
    properties = {argument.name: _schema(argument, text) for argument in arguments}
    required = [argument.name for argument in arguments if argument.default is REQUIRED]
    schema = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    parameters = [
        {
            "name": argument.name,
            "type": _type(properties[argument.name]),
            "required": argument.default is REQUIRED,
            **_given_default(argument),
            "doc": text.meanings.get(argument.name, ""),
        }
        for argument in arguments
    ]
    return {
        "name": function.name,
        "kind": _KINDS.get(function.traits.nature, "request"),
        "doc": text.text,
        "result": text.result,
        "labels": {},
        "parameters": parameters,
        "schema": {"title": function.name, "description": text.text, **schema},
    }


def _schema(argument: Argument, text: FunctionText) -> dict[str, Any]:
    found = dict(_SCHEMAS.get(argument.method, {}))
    if argument.choices:
        found["enum"] = list(argument.choices)
    meaning = text.meanings.get(argument.name)
    return {**found, **_given_default(argument), **({"description": meaning} if meaning else {})}


def _given_default(argument: Argument) -> dict[str, Any]:
    is_plain = isinstance(argument.default, str | int | float | bool)
    return {"default": argument.default} if is_plain else {}


def _type(schema: dict[str, Any]) -> str:
    found = schema.get("type", "any")
    return found if isinstance(found, str) else " or ".join(found)
