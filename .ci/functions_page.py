"""The page of the built-in functions: arguments from the code that takes them, meanings from its docstring."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import attrs
from attrs import frozen
from settings_page import member_texts

from teatree.datasets.csv.options import CsvOptions
from teatree.functions.registry import built_in_functions
from teatree.functions.traits import Function

KINDS = {
    "text": "a text",
    "integer": "a whole number, 0 or more",
    "flag": "true or false",
    "members": "an object",
    "items": "a list",
    "texts": "a list of texts",
    "choice": "one of",
    "rows": "a list of objects, or the Arrow body",
    "parameters": "a list for `?`, an object for `$name`",
    "csv_options": "options of a CSV file",
}
"""By method of `Call`: what it takes."""
HEAD = """# Functions

<!-- Made from the code by `make pages`; a test compares the two. -->

Every model has these functions. A request is published on `teatree.request.<model>.<function>`, or with its sender on
`teatree.request.<model>.<function>.<sender>`, with its arguments as a JSON object ([the wire protocol](wire.md)). The
command line sends it by `teatree send MODEL FUNCTION ARGUMENTS`, Python by `model.send(function, arguments)`, or by the
method of the function's name ([Python](python.md)). Arguments that a function does not have are refused
(`unknown_argument`).

All functions take `expected_version`, the number of a version: the request is rejected as `stale_version` if another
request took effect after that version.

An argument with a default may be left out; `null` is the same as leaving it out.
"""


@frozen
class Argument:
    """One argument of a function."""

    name: str
    kind: str
    default: str | None
    """None if it is required."""
    meaning: str = ""
    """If it has one elsewhere; else the docstring of the function has."""


@frozen
class Text:
    """What a function's docstring states."""

    text: str
    meanings: dict[str, str]
    """Of its arguments, by name."""
    result: str


def functions_page() -> str:
    """Return the page; raises if an argument has no meaning, or a meaning no argument."""
    return HEAD + "".join(_section(function) for function in built_in_functions().functions.values())


def _section(function: Function) -> str:
    name, arguments, text = function.name, list(_arguments(function.run)), _text(function)
    unexplained = {a.name for a in arguments if not a.meaning}
    if unexplained != text.meanings.keys():
        msg = f"{name}: its docstring and its arguments differ: {sorted(unexplained ^ text.meanings.keys())}"
        raise LookupError(msg)
    lines = [f"\n## {name}\n\n", f"{text.text}\n"]
    if arguments:
        lines.append("\n| argument | value | default | meaning |\n| --- | --- | --- | --- |\n")
    for a in arguments:
        default = "required" if a.default is None else a.default
        meaning = " ".join((a.meaning or text.meanings[a.name]).split())
        lines.append(f"| `{a.name}` | {a.kind} | {default} | {meaning} |\n")
    if function.traits.alone:
        lines.append("\nIt is applied in a separate batch: it can take long.\n")
    lines.append(f"\nResult: {text.result}\n")
    return "".join(lines)


def _text(function: Function) -> Text:
    """Return a docstring's parts: after its last empty line an item `name: meaning` for each argument, and `Result`."""
    before, _, after = (inspect.getdoc(function.run) or "").rpartition("\n\n")
    items = re.findall(r"^(\w+): (.*(?:\n .*)*)", after, re.MULTILINE)
    found = {name: " ".join(meaning.split()) for name, meaning in items}
    if not before or "Result" not in found:
        msg = f"{function.name}: its docstring needs what it does, an empty line, and an item `Result: …`"
        raise LookupError(msg)
    result = found.pop("Result")
    return Text(before, found, result)


def _arguments(run: Callable[..., Any]) -> Iterator[Argument]:
    """Yield the arguments that a function, or one to which it passes its call, takes."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(run)))
    scope: dict[str, Any] = run.__globals__
    for node in sorted((n for n in ast.walk(tree) if isinstance(n, ast.Call)), key=lambda n: (n.lineno, n.col_offset)):
        match node.func:
            case ast.Attribute(value=ast.Name(id="call"), attr=method) if method in KINDS:
                yield from _taken(method, node, scope)
            case ast.Name(id=name) if any(isinstance(a, ast.Name) and a.id == "call" for a in node.args):
                yield from _arguments(scope[name])
            case _:
                pass


def _taken(method: str, node: ast.Call, scope: dict[str, Any]) -> Iterator[Argument]:
    kind = KINDS[method]
    match method:
        case "rows":
            yield Argument("rows", kind, None)
        case "parameters":
            yield Argument("parameters", kind, "none")
        case "csv_options":
            yield from _csv_options()
        case _:
            name, *rest = node.args
            if method == "choice":
                choices, *rest = rest
                kind = " or ".join(f"`{choice}`" for choice in _value(choices, scope))
            default = "false" if method == "flag" else None
            if rest:
                default = _shown(rest[0], scope)
            yield Argument(_value(name, scope), kind, default)


def _csv_options() -> Iterator[Argument]:
    meanings = dict(member_texts(CsvOptions))
    for option in attrs.fields(CsvOptions):
        kind = "true or false" if isinstance(option.default, bool) else "a text"
        match option.default:
            case None:
                default = "none"
            case bool(value):
                default = str(value).lower()
            case "" | ("",):
                default = "the empty text"
            case value:
                default = f"`{value}`"
        kind = "a text, or a list of texts" if option.name == "null" else kind
        yield Argument(option.name, kind, default, f"CSV files: {meanings[option.name]}")


def _shown(node: ast.expr, scope: dict[str, Any]) -> str:
    try:
        value = _value(node, scope)
    except LookupError:
        return "see its meaning"
    return "none" if value in (None, [], {}, ()) else f"`{value}`"


def _value(node: ast.expr, scope: dict[str, Any]) -> Any:
    if isinstance(node, ast.Name) and node.id in scope:
        return scope[node.id]
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise LookupError(ast.unparse(node)) from None
