"""The result of a run: counts by converter and type, refusals, and differences with commands that reproduce them."""

from __future__ import annotations

from collections import Counter

from attrs import Factory, define, frozen

DIFFERENCES_MAX = 40
"""Differences after which a run ends; most have the same cause."""

ALIKE_MAX = 2
"""Differences of one converter and one type that are kept."""


@frozen
class Difference:
    """A value that a converter changed."""

    converter: str
    kind: str
    given: str
    expected: str
    found: str
    again: str
    """The command that reproduces it."""

    def __str__(self) -> str:
        return (
            f"DIFFERENCE {self.converter} {self.kind[:200]}\n  given    {self.given[:400]}\n"
            f"  expected {self.expected[:400]}\n  found    {self.found[:400]}\n  again    {self.again}"
        )


@define
class FuzzReport:
    """Counts and differences."""

    again: str = ""
    """The command of the current round."""
    values: Counter[tuple[str, str]] = Factory(Counter)
    refused: Counter[tuple[str, str]] = Factory(Counter)
    differences: list[Difference] = Factory(list)
    differing: Counter[tuple[str, str]] = Factory(Counter)

    def count(self, converter: str, base: str, number: int = 1) -> None:
        """Count values that were compared."""
        self.values[converter, base] += number

    def refuse(self, converter: str, base: str) -> None:
        """Count a value that was refused where that is allowed."""
        self.refused[converter, base] += 1

    def compare(self, converter: str, kind: str, base: str, given: str, expected: object, found: object) -> None:
        """Count one value, and keep a difference."""
        self.count(converter, base)
        if expected != found:
            self.differ(converter, kind, given, expected, found)

    def differ(self, converter: str, kind: str, given: str, expected: object, found: object) -> None:
        """Keep a difference, at most two of each converter and type."""
        self.differing[converter, kind] += 1
        if self.differing[converter, kind] > ALIKE_MAX:
            return
        self.differences.append(Difference(converter, kind, given, repr(expected), repr(found), self.again))

    def summary(self) -> str:
        """Return the counts, a line for each converter."""
        lines = []
        for converter in sorted({name for name, _ in self.values | self.refused}):
            bases = {base: n for (name, base), n in sorted(self.values.items()) if name == converter}
            refused = {base: n for (name, base), n in sorted(self.refused.items()) if name == converter}
            lines.append(f"{converter:16} {sum(bases.values()):>9,} values: {_counts_text(bases)}")
            if refused:
                lines.append(f"{'':16} {sum(refused.values()):>9,} refused: {_counts_text(refused)}")
        lines.append(f"{'all':16} {self.values.total():>9,} values, {self.refused.total():,} refused")
        return "\n".join(lines)


def _counts_text(counts: dict[str, int]) -> str:
    return " ".join(f"{base}={number}" for base, number in counts.items())
