"""The WITH names that are in scope at one place of a statement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import frozen


@frozen
class WithNames:
    """The first `visible` names of one WITH, and the names in scope where that WITH stands.

    All places of a WITH share its positions: with a set of names for each, 15,000 names would take gigabytes.
    """

    positions: Mapping[str, int]
    """By folded name: which one of the WITH it is, from 0."""
    visible: int
    outer: WithNames | None

    def __contains__(self, name: str) -> bool:
        scope: WithNames | None = self
        while scope is not None:
            if scope.positions.get(name, scope.visible) < scope.visible:
                return True
            scope = scope.outer
        return False

    def entering(self, names: Sequence[str]) -> list[WithNames]:
        """Return what is in scope in the body of each name of a WITH that stands here, and last, after all of them.

        A name is in scope after its body, not in it.
        """
        if not names:
            return [self]
        positions = {name: number for number, name in reversed(list(enumerate(names)))}
        return [WithNames(positions, visible, self) for visible in range(len(names) + 1)]


NO_NAMES = WithNames({}, 0, None)
