"""The hash of an app's code: what distinguishes two builds of the same version."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path

from blake3 import blake3

SUFFIXES = (".py", ".sql")
"""Endings of the files that are code."""


def code_hash(module: str) -> str:
    """Return the blake3 (hex) of the names and contents of the source files of a module's top-level package.

    Raises ModuleNotFoundError if there is no such package, OSError if a file cannot be read; it imports nothing.
    """
    package = module.partition(".")[0]
    spec = find_spec(package)
    if spec is None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    found = blake3()
    for name, path in sorted(_files(spec)):
        body = path.read_bytes()
        for part in (name.encode("utf-8", "surrogateescape"), body):
            found.update(len(part).to_bytes(8, "big"))
            found.update(part)
    return found.hexdigest()


def _files(spec: ModuleSpec) -> Iterator[tuple[str, Path]]:
    """Yield the source files of a package, or the file of a module, by their names in it."""
    if spec.submodule_search_locations is None:
        if spec.origin is not None and Path(spec.origin).is_file():
            yield Path(spec.origin).name, Path(spec.origin)
        return
    for folder in map(Path, spec.submodule_search_locations):
        for path in folder.rglob("*"):
            if path.suffix in SUFFIXES and path.is_file():
                yield path.relative_to(folder).as_posix(), path
