"""The page of all settings: a row for each variable, from the classes in `teatree.contracts`."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import attrs

from teatree.contracts.environment import CONNECTIONS, GROUPS, PLACES, place_variable, variable_of
from teatree.contracts.settings import Settings

DEFAULTS = {
    "TEATREE_HOST": "the host's name",
    "TEATREE_SENDER": "the user's name",
    "TEATREE_CACHE_FOLDER": "`teatree` in the user's cache folder",
    "TEATREE_LOAD_ROOTS": "none",
}
"""Defaults that are not a value in the class."""
UNITS = {
    "ms": "milliseconds",
    "hours": "hours",
    "days": "days",
    "bytes_per_s": "bytes a second",
    "bytes": "bytes",
    "rows": "rows",
    "requests": "requests",
    "pages": "pages",
    "versions": "versions",
}
"""By a part of a name: the unit that it names; the first that fits counts."""
HEAD = """# Settings

<!-- Made from the code by `make pages`; a test compares the two. -->

All settings are environment variables, or lines of `teatree.env` in the data folder; the environment wins. They are
read once, when a process starts. A variable `TEATREE_…` that is none of these causes a warning; a value that is not of
its setting's type or out of its range is an error (`wrong_configuration`). The unit stands in the name: `_MS` are
milliseconds, `_BYTES` are bytes (a million is 1,000,000).

A model can have lower limits than the operator's: the argument `limits` of [`create_model`](functions.md#create_model).
"""
TABLE = "| name | default | unit | meaning |\n| --- | --- | --- | --- |\n"


def settings_page() -> str:
    """Return the page; raises for a setting without a text below it."""
    parts = [HEAD, "\n## Connections and places\n\n", TABLE]
    for group in CONNECTIONS:
        parts += [_row(variable_of(group, a.name), GROUPS[group], a.name) for a in attrs.fields(GROUPS[group])]
    parts += [_row(place_variable(name), Settings, name) for name in PLACES]
    parts.append(
        "| `TEATREE_DEBUG` | | | If it is set, the command line shows the traceback of an unexpected error. |\n"
    )
    for group in [group for group in GROUPS if group not in CONNECTIONS]:
        kind = GROUPS[group]
        parts.append(f"\n## {group.capitalize()}\n\n{inspect.getdoc(kind)}\n\n{TABLE}")
        parts += [_row(variable_of(group, a.name), kind, a.name) for a in attrs.fields(kind)]
    return "".join(parts)


def _row(variable: str, kind: type, name: str) -> str:
    default = DEFAULTS.get(variable) or _shown(getattr(attrs.fields(kind), name).default)
    meaning = " ".join(_meanings(kind)[name].split()).replace("|", "\\|")
    return f"| `{variable}` | {default} | {_unit(name, default)} | {meaning} |\n"


def _shown(value: Any) -> str:
    match value:
        case None | "" | ():
            return "not set"
        case bool():
            return str(value).lower()
        case int():
            return f"{value:,}"
        case float():
            return f"{value:g}"
        case str() | Path():
            return f"`{value}`"
        case _:
            msg = f"no text for the default {value!r}"
            raise TypeError(msg)


def _unit(name: str, default: str) -> str:
    if not default.replace(",", "").replace(".", "").isdigit():
        return ""
    return next((unit for part, unit in UNITS.items() if f"_{part}_" in f"_{name}_"), "")


@cache
def _meanings(kind: type) -> dict[str, str]:
    """Return the text below each member of a class; raises for a member without one."""
    found = dict(member_texts(kind))
    missing = [a.name for a in attrs.fields(kind) if a.name not in found]
    if missing and kind is not Settings:
        msg = f"{kind.__name__}.{missing[0]} has no text below it"
        raise LookupError(msg)
    return found


def member_texts(kind: type) -> Iterator[tuple[str, str]]:
    """Yield each member of a class that has a text below it, with the text."""
    tree = ast.parse(Path(inspect.getsourcefile(kind) or sys.exit(1)).read_text(encoding="utf-8"))
    (body,) = (node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == kind.__name__)
    for member, text in pairwise(body):
        match member, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(meaning))):
                yield name, meaning
            case _:
                pass
