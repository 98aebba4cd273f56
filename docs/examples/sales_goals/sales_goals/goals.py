"""The table `goals`: a row for each leaf of each goal period, with its basis, its goal, and whether that is locked."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from attrs import frozen

from sales_goals.amounts import Growth
from sales_goals.dimensions import Dimensions, Selection
from sales_goals.lines import LINES, Lines
from sales_goals.periods import Period
from sales_goals.spread import spread_sql
from teatree import Read, Refused, Write

GOALS = "goals"
SITE_LOCKS = "site_locks"
"""The sites whose goals were set by an edit."""
_AMOUNT = "DECIMAL(18, 2)"
_CENTS = "({} * 100)::BIGINT"


def find_dimensions(db: Read) -> Dimensions:
    """Return the dimensions of the goals; refuses if there are none yet."""
    if GOALS not in db.tables():
        raise Refused("There are no goals yet.", where=GOALS, hint="`set_goals` computes them.")
    return Dimensions.of(db.schema(GOALS), GOALS)


def prepare_tables(db: Write, dimensions: Dimensions) -> None:
    """Create the tables of goals; refuses if those that are there have other dimensions."""
    if GOALS in db.tables():
        found = Dimensions.of(db.schema(GOALS), GOALS)
        if found != dimensions:
            message = (
                f"The goals have the dimensions {found.names}, the lines {dimensions.names}, or these of other types."
            )
            raise Refused(message, where=GOALS, hint="Drop the tables `goals` and `site_locks`, or load other lines.")
        return
    leaf = {field.name: str(field.dtype) for field in dimensions.fields}
    db.create_table(GOALS, {"goal_period": "VARCHAR", **leaf, "basis": _AMOUNT, "goal": _AMOUNT, "locked": "BOOLEAN"})
    db.create_table(SITE_LOCKS, {"goal_period": "VARCHAR", "site": leaf.get("site", "VARCHAR")})


def insert_sql(lines: Lines, basis: Period, growth: Growth) -> str:
    """Return the statement that inserts the goals of `$goal_period`, computed from the lines of another period."""
    leaf = lines.dimensions
    return f"""
        INSERT INTO {GOALS} WITH
        leaf AS MATERIALIZED (
            SELECT {leaf.with_site}, {_CENTS.format(f"sum({lines.amount})")} AS basis
            FROM {LINES} WHERE {lines.within(basis)} GROUP BY {leaf.names}
        ),
        target AS MATERIALIZED (
            SELECT site, {growth.goal_of("sum(basis)", "site")} AS goal FROM leaf GROUP BY site
        ),
        {spread_sql(leaf)}
        SELECT $goal_period, {leaf.names}, basis * 0.01, goal * 0.01, false FROM spread
        """


def sum_all(db: Read, goal_period: str, dimensions: Dimensions, growth: Growth, names_max: int) -> dict[str, Any]:
    """Return the sums of a period: sites, leaves, basis, goal; and which sites have no goal, and how many."""
    (found,) = db.sql(
        f"""
        WITH leaf AS (SELECT {dimensions.with_site}, basis, goal FROM {GOALS} WHERE goal_period = $goal_period),
        site AS (
            SELECT site, count(*) AS leaves, sum(basis) AS basis, sum(goal) AS goal, bool_or(basis > 0) AS can_spread
            FROM leaf GROUP BY site
        ),
        named AS (
            SELECT *, NOT can_spread OR {growth.goal_of(_CENTS.format("basis"), "site")} < 0 AS without_goal FROM site
        )
        SELECT count(*) AS sites, sum(leaves)::BIGINT AS leaves, sum(basis) AS basis, sum(goal) AS goal,
            count(*) FILTER (without_goal) AS sites_without_goal,
            coalesce(list(site ORDER BY site NULLS LAST) FILTER (without_goal), [])[:{names_max}] AS without_goal
        FROM named
        """,
        {"goal_period": goal_period, **growth.parameters},
    ).rows()
    return found


def find_unknown_sites(db: Read, goal_period: str, dimensions: Dimensions, names: Iterable[str]) -> list[str]:
    """Return those of the names that no site of a period has."""
    found = db.sql(
        f"""
        WITH leaf AS (SELECT {dimensions.with_site} FROM {GOALS} WHERE goal_period = $goal_period)
        SELECT unnest($names::VARCHAR[]) AS name EXCEPT SELECT site::VARCHAR FROM leaf ORDER BY name
        """,
        {"goal_period": goal_period, "names": list(names)},
    )
    return [row["name"] for row in found.rows()]


@frozen
class SiteGoals:
    """The sums of the leaves that an edit changes or has to leave as they are."""

    leaves: int
    goal: int
    locked: int
    """The cents of the locked ones."""
    can_change: int
    """How many are unlocked and have a positive basis."""


def sum_goals(db: Read, goal_period: str, site: Selection, except_leaf: Selection | None = None) -> SiteGoals:
    """Return the sums of a site; with `except_leaf`, `locked` and `can_change` without that leaf."""
    others = f"NOT ({except_leaf.condition})" if except_leaf else "true"
    values = {**site.values, **(except_leaf.values if except_leaf else {})}
    (found,) = db.sql(
        f"""
        SELECT count(*) AS leaves, {_CENTS.format("coalesce(sum(goal), 0)")} AS goal,
            {_CENTS.format(f"coalesce(sum(goal) FILTER (locked AND {others}), 0)")} AS locked,
            count(*) FILTER (NOT locked AND basis > 0 AND {others}) AS can_change
        FROM {GOALS} WHERE goal_period = $goal_period AND {site.condition}
        """,
        {"goal_period": goal_period, **values},
    ).rows()
    return SiteGoals(**found)


def spread_again(db: Write, goal_period: str, dimensions: Dimensions, site: Selection, cents: int) -> int:
    """Spread an amount over the unlocked leaves of a site; return their number."""
    return db.execute(
        f"""
        UPDATE {GOALS} SET goal = spread.goal * 0.01 FROM (
            WITH leaf AS MATERIALIZED (
                SELECT {dimensions.with_site}, {_CENTS.format("basis")} AS basis
                FROM {GOALS} WHERE goal_period = $goal_period AND NOT locked AND {site.condition}
            ),
            target AS MATERIALIZED (SELECT DISTINCT site, $cents::BIGINT AS goal FROM leaf),
            {spread_sql(dimensions)}
            SELECT * FROM spread
        ) AS spread
        WHERE {GOALS}.goal_period = $goal_period AND NOT {GOALS}.locked AND {dimensions.same(GOALS, "spread")}
        """,
        {"goal_period": goal_period, "cents": cents, **site.values},
    )
