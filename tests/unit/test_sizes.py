"""The sizes of rooms, files, classes and functions: bounded, or with a reason beside them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("src/teatree", "manager/teatree_manager", "dispatcher/teatree_dispatcher")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
ROOM_FILES_MAX = 20
FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 50
METHODS_MAX = 10
PARTS_MAX = 6
REASON = "# more than"
"""What the comment above a class or function over a bound begins with: `# More than ten public methods: <why>`."""

Definition = ast.FunctionDef | ast.AsyncFunctionDef


def _public_methods(node: ast.ClassDef) -> int:
    names = {part.name for part in node.body if isinstance(part, Definition)}
    return sum(not name.startswith("_") for name in names)


def _parts(node: Definition) -> int:
    arguments = node.args
    return len(arguments.posonlyargs) + len(arguments.args) + len(arguments.kwonlyargs) - 1


def _over(tree: ast.AST) -> Iterator[tuple[ast.ClassDef | Definition, str]]:
    """Yield what is over a bound, and by what."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and _public_methods(node) > METHODS_MAX:
            yield node, f"{_public_methods(node)} public methods"
        if isinstance(node, Definition):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                yield node, f"{lines} lines"
            if node.name == "__init__" and _parts(node) > PARTS_MAX:
                yield node, f"{_parts(node)} parts"


def _has_reason(node: ast.ClassDef | Definition, lines: list[str]) -> bool:
    """Return whether the line above a definition, and above its decorators, is a reason."""
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    above = lines[first - 2].strip().lower()
    return above.startswith(REASON) and bool(above.partition(":")[2].strip())


@pytest.mark.parametrize("package", PACKAGES)
def test_no_room_has_more_than_twenty_files(package: str) -> None:
    """A room with more files gets inner rooms."""
    folders = {path.parent for path in FILES if path.is_relative_to(ROOT / package)}
    sizes = {folder: sum(path.name != "__init__.py" for path in folder.glob("*.py")) for folder in folders}
    assert {str(folder): size for folder, size in sizes.items() if size > ROOM_FILES_MAX} == {}


def test_no_file_is_longer_than_four_hundred_lines() -> None:
    """A longer file has a second noun in it."""
    lengths = {str(path): len(path.read_text().splitlines()) for path in FILES}
    assert {path: length for path, length in lengths.items() if length > FILE_LINES_MAX} == {}


def test_what_is_over_a_bound_has_a_reason_beside_it() -> None:
    """Ten public methods a class, fifty lines a function, six parts a constructor; else a reason in the line above."""
    without = []
    for path in FILES:
        text = path.read_text()
        lines = text.splitlines()
        for node, size in _over(ast.parse(text)):
            if not _has_reason(node, lines):
                without.append(f"{path.relative_to(ROOT)}:{node.lineno}: {node.name} has {size}")
    assert without == []
