"""The path of a data folder: DuckDB must find its files below it."""

from __future__ import annotations

import os
from pathlib import Path

from teatree.contracts.errors import Code, RequestError

SERVERS_FOLDER = "_servers"
"""In the data folder: one folder for each server."""
_MISREAD = {"?": "the beginning of options", "\\": "a separator"}
"""DuckDB 2.0 takes these for something else, in the path with all links followed."""


def check_data_folder(path: Path) -> None:
    """Raise `usage` for a path that is a file, or that DuckDB would misread."""
    if path.exists() and not path.is_dir():
        raise RequestError(Code.USAGE, f"{path} is a file, not a folder.", where="data", hint="Name a folder.")
    for character, meaning in _MISREAD.items():
        if character in os.path.realpath(path):
            raise RequestError(
                Code.USAGE,
                f"The path of the data folder holds {character!r}, which DuckDB takes for {meaning}: {path}",
                where="data",
                hint="Choose another folder.",
            )


def server_log(data: Path, name: str) -> Path:
    """Return the log of a data folder's server; beyond its limit the next start makes it the `former_log`."""
    return data / SERVERS_FOLDER / name / f"{name}.log"


def former_log(log: Path) -> Path:
    """Return the log before this one: what a log that has grown too large is renamed to."""
    return log.with_name(f"{log.name}.1")
