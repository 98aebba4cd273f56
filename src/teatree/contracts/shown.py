"""Values in messages: written as in JSON, with their digits as they were sent, and cut to a part of a line."""

from __future__ import annotations

import json
import re
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

SHOWN_CHARS_MAX = 60
_ELEMENTS_MAX = 20
_DEPTH_MAX = 8
_UNSAFE = re.compile("[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Characters that a terminal acts on instead of showing them: controls, and marks that turn the direction of text."""


def shown(value: Any) -> str:
    """Return a value as JSON writes it: null, true, 1.50; a text in single quotes."""
    text = repr(value) if isinstance(value, str | bytes) else _json_words(value, 0)
    return text if len(text) <= SHOWN_CHARS_MAX else text[:SHOWN_CHARS_MAX] + "…"


def _json_words(value: Any, depth: int) -> str:
    match value:
        case None | bool():
            return {None: "null", True: "true", False: "false"}[value]
        case date() | datetime() | time():
            return value.isoformat()
        case Decimal():
            return str(value)
        case str():
            return json.dumps(value[: 2 * SHOWN_CHARS_MAX], ensure_ascii=False)
        case dict() | list() | tuple() if depth > _DEPTH_MAX:
            return "…"
        case dict():
            members = list(value.items())[:_ELEMENTS_MAX]
            return (
                "{" + ", ".join(f"{_json_words(k, depth + 1)}: {_json_words(v, depth + 1)}" for k, v in members) + "}"
            )
        case list() | tuple():
            return "[" + ", ".join(_json_words(element, depth + 1) for element in value[:_ELEMENTS_MAX]) + "]"
        case _:
            return repr(value)


def visible(text: str, keep: str = "") -> str:
    r"""Return a text in which each character that a terminal would act on is written out, as in \x1b; not `keep`."""
    return _UNSAFE.sub(lambda found: found[0] if found[0] in keep else _escape(found[0]), text)


def _escape(character: str) -> str:
    names = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
    code = ord(character)
    return names.get(character) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def visible_json(body: bytes) -> bytes:
    """Return JSON in which every character that a terminal would act on is escaped: the same JSON."""
    if body.isascii() and b"\x7f" not in body:
        return body  # JSON escapes the first 32 itself
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", body.decode()).encode()
