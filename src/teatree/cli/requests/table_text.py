"""Parsing a table's text: `sales(id BIGINT, site VARCHAR NOT NULL, PRIMARY KEY (id))`."""

from __future__ import annotations

import json
import re
from typing import Any

from teatree.cli.exits import usage

_EXAMPLE = "Write it as 'sales(id BIGINT, site VARCHAR NOT NULL, amount DECIMAL(18,2) DEFAULT 0, PRIMARY KEY (id))'."
_NAME = re.compile(r'\s*(?:"((?:[^"]|"")+)"|([^\s("\',)]+))\s*')
_KEY = re.compile(r"PRIMARY\s+KEY\s*\((.*)\)", re.IGNORECASE | re.DOTALL)
_DEFAULT = re.compile(r"\bDEFAULT\s+('(?:[^']|'')*'|[^\s']+)", re.IGNORECASE)
_MARKS = (
    (re.compile(r"\bNOT\s+NULL\b", re.IGNORECASE), "not null"),
    (re.compile(r"\bPRIMARY\s+KEY\b", re.IGNORECASE), "key"),
    (re.compile(r"\bNULL\s*$", re.IGNORECASE), "null"),
)
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?")
_WORDS = {"true": True, "false": False, "null": None}


def read_table(text: str) -> dict[str, Any]:
    """Return the arguments of `create_table`; types are left to the server. Raises `usage`."""
    name, rest = _name(text, text)
    if not rest.startswith("(") or not rest.rstrip().endswith(")"):
        raise usage(f"{text!r} is not a table.", _EXAMPLE)
    columns: list[dict[str, Any]] = []
    key: list[str] = []
    for part in _split(rest.rstrip()[1:-1], text):
        found = _KEY.fullmatch(part.strip())
        if found:
            key.extend(_name(piece, text)[0] for piece in _split(found[1], text))
            continue
        column, is_key = _column(part, text)
        columns.append(column)
        if is_key:
            key.append(column["name"])
    return {"table": name, "columns": columns} | ({"primary_key": key} if key else {})


def _name(text: str, whole: str) -> tuple[str, str]:
    found = _NAME.match(text)
    if not found:
        raise usage(f"There is no name at {text.strip()[:40]!r} in {whole!r}.", _EXAMPLE)
    return (found[1].replace('""', '"') if found[1] else found[2]), text[found.end() :]


def _column(text: str, whole: str) -> tuple[dict[str, Any], bool]:
    name, rest = _name(text, whole)
    column: dict[str, Any] = {"name": name}
    found = _DEFAULT.search(rest)
    if found:
        column["default"] = _literal(found[1], whole)
        rest = rest[: found.start()] + rest[found.end() :]
    marks = set()
    for pattern, mark in _MARKS:
        rest, count = pattern.subn(" ", rest)
        if count:
            marks.add(mark)
    if not rest.strip():
        raise usage(f"The column {name!r} has no type in {whole!r}.", _EXAMPLE)
    column["type"] = " ".join(rest.split())
    if "not null" in marks:
        column["nullable"] = False
    return column, "key" in marks


def _literal(text: str, whole: str) -> Any:
    if text.startswith("'"):
        return text[1:-1].replace("''", "'")
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if _NUMBER.fullmatch(text):
        return json.loads(text.lstrip("+")) if re.fullmatch(r"[+-]?\d+", text) else text
    raise usage(f"The default {text!r} in {whole!r} is not a number, a text in '', TRUE, FALSE or NULL.", _EXAMPLE)


def _split(text: str, whole: str) -> list[str]:
    """Split at the commas outside of brackets and quotes."""
    parts, start, depth, quote = [], 0, 0, ""
    for place, char in enumerate(text):
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char in "([":
            depth += 1
        elif char in ")]":
            depth -= 1
        elif char == "," and depth == 0:
            parts.append(text[start:place])
            start = place + 1
    parts.append(text[start:])
    if depth or quote or not all(part.strip() for part in parts):
        raise usage(f"Brackets, quotes or commas do not match in {whole!r}.", _EXAMPLE)
    return parts
