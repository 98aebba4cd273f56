"""Arguments and rows as JSON texts: every digit is sent as it was written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import orjson

from teatree.cli.exits import usage
from teatree.contracts.errors import RequestError

ROW_BYTES_MAX = 8_000_000


def read_args(text: str, where: str) -> dict[str, Any]:
    """Return the members of a JSON object, numbers unchanged; raises `usage`."""
    try:
        value = json.loads(
            text,
            parse_float=_as_written,
            parse_int=_as_written,
            parse_constant=_no_constant,
            object_pairs_hook=_members,
        )
    except ValueError as e:
        raise usage(f"{where} is not JSON: {e}.", """Write it as '{"table": "sales"}', in single quotes.""") from None
    if not isinstance(value, dict):
        raise usage(f"{where} is not a JSON object.", """Write it as '{"table": "sales"}', in single quotes.""")
    return value


def read_given(args: str | None, file: str | None) -> dict[str, Any]:
    """Return a command's arguments, given as JSON or in a file; raises `usage` if they are given twice."""
    if file is None:
        return read_args(args or "{}", "ARGS")
    if args is not None:
        raise usage("The arguments are given twice.", "Give them as JSON, or with --file.")
    return read_args(read_text(file), file)


def read_value(text: str) -> Any:
    """Return one value: JSON if the text is, with its digits as written, else the text itself."""
    try:
        members = read_args(f'{{"value": {text}}}', "value")
    except RequestError:
        return text
    return members["value"] if members.keys() == {"value"} else text


def _as_written(text: str) -> Any:
    return orjson.Fragment(text.encode())


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(n for n in names if names.count(n) > 1)!r} occurs twice")
    return members


def read_rows(file: IO[bytes], name: str) -> Iterator[tuple[Any, int]]:
    """Yield each row of JSON lines, to be sent as written, and its bytes; raises `usage` naming the line."""
    for number, line in enumerate(iter(lambda: file.readline(ROW_BYTES_MAX), b""), 1):
        text = line.strip()
        if not text:
            continue
        try:
            row = orjson.loads(text)
        except ValueError as e:
            raise usage(f"{name}, line {number} is not JSON: {e}.", "Write one object a line.") from None
        if not isinstance(row, dict):
            raise usage(f"{name}, line {number} is not an object.", "Write one object a line.")
        yield orjson.Fragment(text), len(line)


def read_text(path: str) -> str:
    """Return the text of a file, or of standard input for `-`; raises `usage`."""
    try:
        if path == "-":
            import sys  # noqa: PLC0415

            return sys.stdin.read()
        return Path(path).read_text()
    except OSError as e:
        raise usage(f"{path} cannot be read: {e.strerror}.") from None
    except UnicodeDecodeError:
        raise usage(f"{path} is not UTF-8.") from None
