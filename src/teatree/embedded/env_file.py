"""`teatree.env`: a block of lines that `teatree up` writes and removes; the user's lines around it stay.

Values are quoted where a shell needs it, so that `. DIR/teatree.env` works without anything of Teatree's.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from teatree.embedded.secret_file import write_private

_BEGIN = "# --- written by teatree up, and removed when it ends ---"
_END = "# --- end of what teatree up wrote ---"


def write_block(path: Path, values: Mapping[str, str]) -> None:
    """Put these variables into the file, after the user's lines."""
    lines = [*_others(path), _BEGIN, *(f"{name}={shlex.quote(value)}" for name, value in values.items()), _END]
    write_private(path, _text(lines))


def remove_block(path: Path) -> None:
    """Remove the variables, and the file if it holds nothing else."""
    others = _others(path)
    if any(line.strip() for line in others):
        write_private(path, _text(others))
    else:
        path.unlink(missing_ok=True)


def _others(path: Path) -> list[str]:
    if not path.is_file():
        return []
    lines: list[str] = []
    ours = False
    for line in path.read_bytes().decode("utf-8", "surrogateescape").splitlines():
        ours = ours or line == _BEGIN
        if not ours:
            lines.append(line)
        ours = ours and line != _END
    return lines


def _text(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
