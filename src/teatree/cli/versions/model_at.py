"""The notation of a version on the command line: `sales@12`."""

from __future__ import annotations

from teatree.cli.exits import usage


def split_version(text: str) -> tuple[str, int | None]:
    """Return the model and the version that `MODEL` or `MODEL@N` names; raises `usage`."""
    model, at, number = text.partition("@")
    if not at:
        return model, None
    if not (number.isascii() and number.isdigit()):
        raise usage(f"{text!r} names no version.", "Write it as sales@12; `teatree versions sales` lists them.")
    return model, int(number)
