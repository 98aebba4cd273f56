"""The page of the built-in functions: arguments from the code that takes them, meanings from its docstring."""

from __future__ import annotations

from settings_page import member_texts

from teatree.datasets.csv.options import CsvOptions
from teatree.functions.built_in_text import REQUIRED, UNCLEAR, Argument, arguments_of, function_text
from teatree.functions.registry import built_in_functions
from teatree.functions.traits import Function

KINDS = {
    "text": "a text",
    "nullable_text": "a text, or `null`",
    "integer": "a whole number, 0 or more",
    "flag": "true or false",
    "members": "an object",
    "items": "a list",
    "texts": "a list of texts",
    "rows": "a list of objects, or the Arrow body",
    "parameters": "a list for `?`, an object for `$name`",
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


def functions_page() -> str:
    """Return the page; raises if an argument has no meaning, or a meaning no argument."""
    return HEAD + "".join(_section(function) for function in built_in_functions().functions.values())


def _section(function: Function) -> str:
    name, arguments, text = function.name, list(arguments_of(function.run)), function_text(function)
    options = dict(member_texts(CsvOptions))
    unexplained = {a.name for a in arguments if a.method != "csv_options"}
    if unexplained != text.meanings.keys():
        msg = f"{name}: its docstring and its arguments differ: {sorted(unexplained ^ text.meanings.keys())}"
        raise LookupError(msg)
    lines = [f"\n## {name}\n\n", f"{text.text}\n"]
    if arguments:
        lines.append("\n| argument | value | default | meaning |\n| --- | --- | --- | --- |\n")
    for a in arguments:
        meaning = text.meanings[a.name] if a.method != "csv_options" else f"CSV files: {options[a.name]}"
        lines.append(f"| `{a.name}` | {_kind(a)} | {_default(a)} | {' '.join(meaning.split())} |\n")
    if function.traits.alone:
        lines.append("\nIt is applied in a separate batch: it can take long.\n")
    lines.append(f"\nResult: {text.result}\n")
    return "".join(lines)


def _kind(argument: Argument) -> str:
    if argument.method != "csv_options":
        return " or ".join(f"`{choice}`" for choice in argument.choices) or KINDS[argument.method]
    if argument.name == "null":
        return "a text, or a list of texts"
    return "true or false" if isinstance(argument.default, bool) else "a text"


def _default(argument: Argument) -> str:
    default, is_option = argument.default, argument.method == "csv_options"
    if default is REQUIRED:
        return "required"
    if default is UNCLEAR:
        return "see its meaning"
    if is_option and default in ("", ("",)):
        return "the empty text"
    if isinstance(default, bool) and (is_option or argument.method == "flag"):
        return str(default).lower()
    return "none" if default in (None, [], {}, ()) else f"`{default}`"
