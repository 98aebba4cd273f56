"""ARCHITECTURE.md names files and symbols that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "ARCHITECTURE.md").read_text()
FOLDERS = ("src", "manager", "dispatcher", "tests", ".ci")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def _names() -> set[str]:
    """Return the names of all classes, functions, members and constants of the code."""
    names: set[str] = set()
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                names.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                names.add(node.attr)
    return names


def test_every_file_exists() -> None:
    """A path in backticks is a file, or the end of a file's path; `manager/` is short for the package."""
    paths = [str(path.relative_to(ROOT)) for path in FILES]
    paths += [path.replace("/teatree_manager", "").replace("/teatree_dispatcher", "") for path in paths]
    named = sorted(set(re.findall(r"`([a-z_/]+\.py)`", TEXT)))
    assert len(named) > 40
    assert [name for name in named if not any(f"/{path}".endswith(f"/{name}") for path in paths)] == []


def test_every_symbol_exists() -> None:
    """A class in backticks, and its member after a dot, are in the code."""
    names = _names()
    named = re.findall(r"`([A-Z][A-Za-z]*[a-z][A-Za-z]*)(?:\.([a-z_]+))?(?:\(\))?`", TEXT)
    assert len(named) > 60
    assert sorted({part for pair in named for part in pair if part} - names) == []
