"""Functions as texts for people."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import attrs

from teatree.cli.requests.argument_pairs import built_in
from teatree.contracts.errors import Code, RequestError
from teatree.contracts.formats.codec import dump_json

if TYPE_CHECKING:
    from teatree.cli.output import Output
    from teatree.client.calls.function_info import AppInfo, FunctionInfo

NAMES_SHOWN_MAX = 20
_COMMANDS = {"send": "teatree.cli.requests.send", "call": "teatree.cli.functions.call"}


def print_list(output: Output, app: AppInfo, functions: Sequence[FunctionInfo], model: str) -> None:
    """Print functions, one a line, with the first sentence of each one's documentation.

    Raises the error for which the app's functions cannot be called.
    """
    if app.error is not None:
        raise app.error
    if app.name is None:
        output.message(f"{model} has no app: only the built-in functions. `teatree use-app {model} NAME` gives it one.")
        return
    rows = [(f.signature, f.kind, _labels(f.labels), next(iter(f.doc.splitlines()), "")) for f in functions]
    output.table(("function", "kind", "labels", ""), rows)
    output.remark(f"App {app.name} {app.version}; `teatree functions {model} FUNCTION` explains one.")


def function_text(function: FunctionInfo, model: str) -> str:
    """Return one function's signature, documentation, parameters, and a command that calls it."""
    is_called = function.kind == "query" and function.handle
    command = "call" if is_called else "send"
    taken = own_options(command)
    parts = [function.signature, _indented(function.doc) if function.doc else ""]
    if function.parameters:
        parts.append("Parameters:\n" + "\n".join(_parameter_lines(function.parameters, taken)))
    if function.labels:
        parts.append(f"Labels: {_labels(function.labels)}")
    example = _example(function, taken)
    parts.append(f"It is a {function.kind}: teatree {command} {model} {function.name} {example}".rstrip())
    return "\n\n".join(part for part in parts if part)


def own_options(command: str) -> frozenset[str]:
    """Return the names of the options of `send` or `call`: an argument of such a name is given in the JSON."""
    run = getattr(import_module(_COMMANDS[command]), command)
    names: set[str] = set()
    for parameter in inspect.signature(run).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY:
            kind = type(parameter.default)
            names |= {field.name for field in attrs.fields(kind)} if attrs.has(kind) else {parameter.name}
    return frozenset(names)


def _example(function: FunctionInfo, taken: frozenset[str]) -> str:
    required = [str(p["name"]) for p in function.parameters if p.get("required")]
    members = ", ".join(f'"{name}": {name.upper()}' for name in required if name in taken)
    pairs = [f"{_flag(name)} {name.upper()}" for name in required if name not in taken]
    return " ".join(([f"'{{{members}}}'"] if members else []) + pairs)


def built_in_text(name: str, model: str) -> str | None:
    """Return the documentation of a built-in function, None if there is none of this name."""
    found = built_in(name)
    return None if found is None else function_text(found, model)


def unknown_function(app: AppInfo, model: str, function: str) -> RequestError:
    """Return the error for a function that an app does not have."""
    names = ", ".join([f.name for f in app][:NAMES_SHOWN_MAX]) or "none"
    owner = f"The app {app.name} of {model}" if app.name else f"{model} has no app: it"
    return RequestError(
        Code.UNKNOWN_FUNCTION, f"{owner} has no function {function!r}.", where="function", hint=f"There are: {names}."
    )


def _parameter_lines(parameters: Sequence[Mapping[str, Any]], taken: frozenset[str]) -> list[str]:
    names = [f'"{p["name"]}" in the JSON' if p["name"] in taken else _flag(str(p["name"])) for p in parameters]
    cells = [
        (name, str(p.get("type", "")), _default(p), str(p.get("doc") or ""))
        for name, p in zip(names, parameters, strict=True)
    ]
    widths = [max(len(row[place]) for row in cells) for place in range(3)]
    return [
        "  " + "  ".join((*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3])).rstrip()
        for row in cells
    ]


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _default(parameter: Mapping[str, Any]) -> str:
    if parameter.get("required"):
        return "required"
    default = parameter.get("default")
    return "optional" if default in (None, "") else f"= {dump_json(default).decode()}"


def _labels(labels: Mapping[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in sorted(labels.items()))


def _indented(text: str) -> str:
    return "\n".join(f"    {line}".rstrip() for line in text.splitlines())
