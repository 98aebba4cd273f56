"""The mark of an import: it shows the next process that importing an app has ended the one before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import orjson

from teatree.contracts.errors import AppError, Code


class ImportMark:
    """A file that exists while an app is imported, with the hash of its code and how often that has begun in a row."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def importing(self, name: str, code_hash: str, tries_max: int) -> Iterator[None]:
        """Import in the block; raises `bad_app` if that has ended its process `tries_max` times."""
        begun = self._begun(code_hash)
        if begun >= tries_max:
            raise AppError(
                Code.BAD_APP,
                f"The import of the app {name!r} has ended its process {begun} times.",
                where="function",
                hint="It is tried again when its code has changed.",
            )
        with suppress(OSError):  # a disk that takes no mark must not keep an app from being used
            self._path.write_bytes(orjson.dumps({"code_hash": code_hash, "begun": begun + 1}))
        try:
            yield
        finally:
            with suppress(OSError):
                self._path.unlink()

    def _begun(self, code_hash: str) -> int:
        try:
            found = orjson.loads(self._path.read_bytes())
            return int(found["begun"]) if found["code_hash"] == code_hash else 0
        except (OSError, ValueError, KeyError, TypeError):
            return 0  # there is none, or the crash tore it
