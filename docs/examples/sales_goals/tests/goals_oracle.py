"""The goals once more, in plain Python with exact numbers and without SQL: what the app is compared with."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from decimal import ROUND_HALF_UP, Context, Decimal
from fractions import Fraction
from typing import Any

from attrs import define, field, frozen

Leaf = tuple[Any, ...]
_EXACT = Context(prec=2_000, rounding=ROUND_HALF_UP, Emax=10_000, Emin=-10_000)


def to_decimal(value: float | Decimal) -> Decimal:
    """Return a number; of a float, the one that its shortest text names."""
    return value if isinstance(value, Decimal) else Decimal(repr(value))


def cents_of(value: Decimal) -> int:
    """Return an amount in cents, rounded half away from zero."""
    return int(value.quantize(Decimal("0.01"), context=_EXACT).scaleb(2, _EXACT))


def line_cents(quantity: float | Decimal, price: float | Decimal) -> int:
    """Return a line's amount."""
    return cents_of(_EXACT.multiply(to_decimal(quantity), to_decimal(price)))


def in_period(moment: date | datetime | None, start: date, end: date) -> bool:
    """Return whether a moment is in a half-open period."""
    if moment is None:
        return False
    day = moment.date() if isinstance(moment, datetime) else moment
    return start <= day < end


def basis_by_leaf(
    lines: Iterable[Mapping[str, Any]], dimensions: Sequence[str], when: str, start: date, end: date
) -> dict[Leaf, int]:
    """Return the cents of each leaf of a period."""
    found: dict[Leaf, int] = defaultdict(int)
    for line in lines:
        if in_period(line[when], start, end):
            found[tuple(line[name] for name in dimensions)] += line_cents(line["quantity"], line["unit_price"])
    return dict(found)


def by_order(leaf: Leaf) -> tuple[tuple[bool, Any], ...]:
    """Return what sorts leaves: NULL last, text by code point, integers by value."""
    return tuple((value is None, "" if value is None else value) for value in leaf)


def spread(goal: int, basis: Mapping[Leaf, int]) -> dict[Leaf, int]:
    """Return a goal over leaves by the largest remainder."""
    goals = dict.fromkeys(basis, 0)
    positive = {leaf: cents for leaf, cents in basis.items() if cents > 0}
    if goal <= 0 or not positive:
        return goals
    total = sum(positive.values())
    shares = {leaf: Fraction(goal * cents, total) for leaf, cents in positive.items()}
    for leaf, share in shares.items():
        goals[leaf] = share.numerator // share.denominator
    left = goal - sum(goals.values())
    ranking = sorted(positive, key=lambda leaf: (goals[leaf] - shares[leaf], by_order(leaf)))
    for leaf in ranking[:left]:
        goals[leaf] += 1
    return goals


@frozen
class Goals:
    """The goals of a period."""

    basis: dict[Leaf, int]
    goal: dict[Leaf, int]
    without_goal: set[Any]


def set_goals(
    basis: Mapping[Leaf, int], site_of: Any, pct: Decimal, pct_by_site: Mapping[str, Decimal] | None = None
) -> Goals:
    """Return all goals; `site_of` is the site of a leaf."""
    sites: dict[Any, dict[Leaf, int]] = defaultdict(dict)
    for leaf, cents in basis.items():
        sites[site_of(leaf)][leaf] = cents
    goals: dict[Leaf, int] = {}
    without = set()
    for site, leaves in sites.items():
        percent = (pct_by_site or {}).get("" if site is None else str(site), pct) if site is not None else pct
        exact = Fraction(sum(leaves.values())) * (1 + Fraction(percent) / 100)
        goal = half_away(exact)
        goals |= spread(goal, leaves)
        if goal < 0 or all(cents <= 0 for cents in leaves.values()):
            without.add(site)
    return Goals(dict(basis), goals, without)


def half_away(value: Fraction) -> int:
    """Return the nearest integer, of two equally near ones that further from zero."""
    nearest = (abs(value) * 2 + 1) // 2
    return int(nearest if value >= 0 else -nearest)


class ImpossibleEdit(Exception):  # noqa: N818 - what the app refuses
    """An edit that is not possible."""


@define
class GoalPlan:
    """Goals that are edited: the state of one goal period."""

    site_of: Any
    basis: dict[Leaf, int]
    goal: dict[Leaf, int]
    locked: set[Leaf] = field(factory=set)

    def _leaves(self, site: Any) -> list[Leaf]:
        return [leaf for leaf in self.basis if self.site_of(leaf) == site]

    def edit_leaf(self, leaf: Leaf, amount: int) -> None:
        """Set a leaf's goal; its site's stays."""
        leaves = self._leaves(self.site_of(leaf))
        total = sum(self.goal[each] for each in leaves)
        others = sum(self.goal[each] for each in leaves if each in self.locked and each != leaf)
        self._respread(leaves, self.locked | {leaf}, total - amount - others)
        self.goal[leaf] = amount
        self.locked.add(leaf)

    def edit_site(self, site: Any, amount: int) -> None:
        """Set a site's goal."""
        leaves = self._leaves(site)
        self._respread(leaves, self.locked, amount - sum(self.goal[each] for each in leaves if each in self.locked))

    def _respread(self, leaves: list[Leaf], locked: set[Leaf], rest: int) -> None:
        unlocked = {leaf: self.basis[leaf] for leaf in leaves if leaf not in locked}
        if rest < 0 or all(cents <= 0 for cents in unlocked.values()):
            raise ImpossibleEdit
        self.goal |= spread(rest, unlocked)
