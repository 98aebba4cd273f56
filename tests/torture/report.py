"""What a run found: violations and counts, and how two contents of a version differ."""

from __future__ import annotations

from collections import defaultdict

from attrs import Factory, define

VIOLATIONS_MAX = 50
"""Violations reported in full; further ones are only counted."""


@define
class Report:
    """Violations and counts of a run."""

    violations: list[str] = Factory(list)
    counts: dict[str, int] = Factory(lambda: defaultdict(int))

    def violation(self, what: str) -> None:
        self.counts["violations"] += 1
        if len(self.violations) < VIOLATIONS_MAX:
            self.violations.append(what)


def differences(content: dict[str, list[str]], right: dict[str, list[str]]) -> list[str]:
    """Return lines on how a content differs from the right one."""
    lines = []
    for name in sorted(content.keys() | right.keys()):
        has, should = content.get(name), right.get(name)
        if has is None or should is None:
            lines.append(f"  table {name} is {'missing' if has is None else 'there'}")
        elif has != should:
            lines += [f"  table {name}: columns {has[0]}, not {should[0]}"] if has[0] != should[0] else []
            lines += [f"  {name}: too much: {row[:150]}" for row in _surplus(has[1:], should[1:])[:10]]
            lines += [f"  {name}: missing: {row[:150]}" for row in _surplus(should[1:], has[1:])[:10]]
    return lines


def _surplus(rows: list[str], others: list[str]) -> list[str]:
    left = list(others)
    surplus = []
    for row in rows:
        if row in left:
            left.remove(row)
        else:
            surplus.append(row)
    return surplus
