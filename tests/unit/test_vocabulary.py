"""The words of the code and the docs are the field's (docs/glossary.md), and each class name stands for one thing."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
FIGURATIVE = frozenset(
    """sayer said say says saying told tell tells telling heard hear hears hearing tenure book books judge judged judges
    judging judgement life birth born lane lanes deaths draft drafts poke poked nudge nudged stray strays filler fillers
    witness settle settles settled patiently steadily challenge challenges tally outbox annex catalogue catalogues
    nobody somebody whoever""".split()
)
"""Words that the glossary replaces, wherever they stand: also inside identifiers."""
PHRASES = re.compile(
    r"\b(go|goes|went|going) on\b|\bstays? away\b|\b(is|are|was|were) gone\b|\bat rest\b|\bwho leaves\b"
    r"|\bof (its|their|his) own\b|\bby (itself|themselves)\b|\bstand[_ ]in\b"
)
NAMES = frozenset(
    """Book Record Judge Judgement Life Birth Origin Lane Attempts Started Draft Parts Target Prior Taken Plan Plans
    Stray Question Answer Face Tally Moves Day Facts NEWS is_foreign has_lost telling_full _goes_on _waits""".split()
)
"""Whole identifiers that the glossary replaces, of words that have another, ordinary use."""
EXCEPTIONS: dict[tuple[str, str], str] = {
    ("tell", "src/teatree/storage/versions/lazy_files.py"): "the position of a file object, by Python's io interface",
    ("tell", "src/teatree/embedded/server.py"): "the same",
    ("nobody", "src/teatree/embedded/postgres_user.py"): "the user of that name on Unix systems",
    ("tell", "src/teatree/datasets/csv/file.py"): "the same",
    ("tell", "src/teatree/datasets/source_rows.py"): "the same",
    ("witness", "src/teatree/messaging/streams.py"): "the anchor's key in the metadata of existing logs",
    ("Parts", "src/teatree/storage/objects/s3.py"): "a parameter of S3's API",
}
"""By word and file: why it stays."""


def sources() -> Iterator[Path]:
    """Return what is checked: code, its tests, the docs, and what builds and checks them."""
    for folder in (".ci", "src", "manager", "dispatcher", "tests", "docs"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".md", ".sql", ".toml") and path != Path(__file__):
                yield path
    yield from (*sorted(ROOT.glob("*.md")), ROOT / "pyproject.toml", ROOT / "Makefile")


def offences(path: Path) -> list[str]:
    """Return where a file uses a word that the glossary replaces, as `line: word`."""
    text = path.read_text(encoding="utf-8")
    name = str(path.relative_to(ROOT))
    found: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        for identifier in re.findall(r"\w+", line):
            words = {w.lower() for w in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", identifier)}
            bad = (words & FIGURATIVE) | ({identifier} & NAMES if path.suffix == ".py" else set())
            found += [f"{number}: {word}" for word in sorted(bad) if (word, name) not in EXCEPTIONS]
    flat = re.sub(r"[ \t]*\n[ \t]*(#|--|>)?[ \t]*", " ", text.lower())
    found += [f"phrase: {match.group(0)}" for match in PHRASES.finditer(flat)]
    return found


def test_words_are_the_glossarys() -> None:
    """No identifier, string, comment or page uses a word that the glossary replaces."""
    found = [f"{path.relative_to(ROOT)}:{offence}" for path in sources() for offence in offences(path)]
    assert found == []


def test_exceptions_are_few() -> None:
    """Twenty at most, each in use."""
    assert len(EXCEPTIONS) <= 20
    for word, name in EXCEPTIONS:
        assert re.search(rf"(?i){word}", (ROOT / name).read_text(encoding="utf-8")), (word, name)


def test_a_class_name_stands_for_one_class() -> None:
    """Two classes share a name only if one of them is private to its file."""
    classes: dict[str, list[str]] = defaultdict(list)
    for path in sources():
        if path.suffix != ".py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                classes[node.name].append(str(path.relative_to(ROOT)))
    assert {name: places for name, places in classes.items() if len(places) > 1} == {}


if __name__ == "__main__":  # python tests/unit/test_vocabulary.py [PART OF A PATH]: lists them
    import sys

    for source in sources():
        if not sys.argv[1:] or any(part in str(source) for part in sys.argv[1:]):
            for offence in offences(source):
                print(f"{source.relative_to(ROOT)}:{offence}")
