"""The header of a `.sql` function: a comment with its kind, name, parameters, options and doc.

    -- query goals_of(site: str, limit: int = 100, until: date | None = None)
    -- The goals of a site, largest first.
    -- page_size: 500

The parameters are written as Python writes them; they are read as those of a function in Python are.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import reduce
from operator import or_
from types import GenericAlias, NoneType
from typing import Any, Literal, NoReturn
from uuid import UUID

from attrs import frozen

from teatree.contracts.errors import Code, OperatorError

_BEGIN = re.compile(r"(mutation|query)\b\s*([^\s(]*)\s*(\(?.*)", re.DOTALL)
_OPTION = re.compile(r"(labels|alone|page_size|time_ms_max)\s*:\s*(.*)")
_KINDS: dict[str, Any] = {
    kind.__name__: kind for kind in (str, int, float, bool, bytes, Decimal, date, datetime, time, timedelta, UUID)
}
_NO_DEFAULT: Any = object()
_FORM = "Begin with a comment as in: -- query goals_of(site: str, limit: int = 100)"


@frozen
class HeaderParameter:
    """One parameter; the default is as it is written, and not yet of the hint's type."""

    name: str
    hint: Any
    has_default: bool
    default: Any


@frozen
class SqlHeader:
    """What the comment at the beginning of a file declares."""

    kind: str
    name: str
    parameters: tuple[HeaderParameter, ...]
    options: dict[str, Any]
    doc: str


def read_header(sql: str, name: str, place: str) -> SqlHeader:
    """Return the header of a file; `name` is the function's if it has none. Raises `bad_app`."""

    def refuse(why: str, hint: str | None = None) -> NoReturn:
        raise OperatorError(Code.BAD_APP, f"The header of {name}.sql {why}.", where=place, hint=hint)

    lines = _comment(sql)
    match = _BEGIN.fullmatch(lines[0]) if lines else None
    if match is None:
        refuse("declares no function", _FORM)
    parsed, rest = _signature(match[3], lines[1:])
    if parsed is None:
        refuse("has parameters that cannot be read", _FORM)
    options: dict[str, Any] = {}
    doc: list[str] = []
    for line in rest:
        option = _OPTION.fullmatch(line)
        if option is None:
            doc.append(line)
        else:
            options[option[1]] = _option(option[1], option[2].strip(), refuse)
    parameters = tuple(_parameters(parsed, refuse))
    return SqlHeader(match[1], match[2] or name, parameters, options, "\n".join(doc).strip())


def _comment(sql: str) -> list[str]:
    """Return the lines of the comment at the beginning, without their dashes."""
    found: list[str] = []
    for line in sql.lstrip().splitlines():
        if not line.lstrip().startswith("--"):
            break
        found.append(line.lstrip().removeprefix("--").strip())
    return found


def _signature(text: str, lines: list[str]) -> tuple[ast.arguments | None, list[str]]:
    """Return the parameters, which can take several lines, and the lines after them."""
    for count in range(len(lines) + 1):
        joined = "\n".join([text, *lines[:count]])
        try:
            (function,) = ast.parse(f"def f{joined or '()'}: ...").body
        except SyntaxError:
            continue
        if isinstance(function, ast.FunctionDef) and function.returns is None:
            return function.args, lines[count:]
    return None, lines


def _option(name: str, text: str, refuse: Callable[..., NoReturn]) -> Any:
    if name == "labels":
        pairs = [pair.partition("=") for pair in text.split(",")]
        if not all(key.strip() and sign for key, sign, _ in pairs):
            refuse("has labels that cannot be read", "Write them as in: labels: task_type=report, team=sales")
        return {key.strip(): value.strip() for key, _, value in pairs}
    if name == "alone":
        if text not in ("true", "false"):
            refuse(f"has alone: {text}, which is true or false")
        return text == "true"
    if not text.isdecimal():
        refuse(f"has {name}: {text}, which is a whole number")
    return int(text)


def _parameters(found: ast.arguments, refuse: Callable[..., NoReturn]) -> Iterable[HeaderParameter]:
    if found.vararg or found.kwarg or found.posonlyargs:
        refuse("has * or / among its parameters")
    given = [_NO_DEFAULT] * (len(found.args) - len(found.defaults)) + list(found.defaults)
    pairs = [*zip(found.args, given, strict=True), *zip(found.kwonlyargs, found.kw_defaults, strict=True)]
    for argument, default in pairs:
        if argument.annotation is None:
            refuse(f"has no type for {argument.arg}", _FORM)
        hint = _hint(argument.annotation)
        if hint is None:
            names = ", ".join([*_KINDS, "Literal[...]", "list[...]"])
            refuse(
                f"has the type {ast.unparse(argument.annotation)} for {argument.arg}", f"Types are {names}, or | None."
            )
        has_default = default is not _NO_DEFAULT and default is not None
        try:
            value = ast.literal_eval(default) if has_default else None
        except ValueError:
            refuse(f"has a default of {argument.arg} that is no plain value: {ast.unparse(default)}")
        yield HeaderParameter(argument.arg, hint, has_default, value)


def _hint(node: ast.expr) -> Any:
    """Return the type that an annotation names; None for what no parameter of SQL can be."""
    match node:
        case ast.Name(name) if name in _KINDS:
            return _KINDS[name]
        case ast.Constant(None):
            return NoneType
        case ast.BinOp(left, ast.BitOr(), right):
            members = (_hint(left), _hint(right))
            return None if None in members else reduce(or_, members)
        case ast.Subscript(ast.Name("Optional"), of):
            inner = _hint(of)
            return None if inner is None else inner | None
        case ast.Subscript(ast.Name("list"), of):
            inner = _hint(of)
            return None if inner is None else GenericAlias(list, (inner,))
        case ast.Subscript(ast.Name("Literal"), of):
            values = of.elts if isinstance(of, ast.Tuple) else [of]
            constants = tuple(value.value for value in values if isinstance(value, ast.Constant))
            return Literal[constants] if len(constants) == len(values) else None
        case _:
            return None
