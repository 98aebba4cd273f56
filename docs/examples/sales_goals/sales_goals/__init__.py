"""Sales goals: a goal period computed from a basis period, and spread over products, customers and salespersons.

The table `lines` has the sales. A *leaf* is a (site, product, customer, salesperson) that they name; the table `goals`
has a row for each leaf of each goal period. README.md explains the arithmetic.
"""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Annotated, Literal

from attrs import frozen

from sales_goals.amounts import Growth, to_amount, to_cents
from sales_goals.dimensions import Dimensions, Value
from sales_goals.goals import (
    GOALS,
    SITE_LOCKS,
    find_dimensions,
    find_unknown_sites,
    insert_sql,
    prepare_tables,
    spread_again,
    sum_all,
    sum_goals,
)
from sales_goals.lines import LINES, Lines, find_lines
from sales_goals.periods import Period
from teatree import App, Context, Dataset, Depends, Read, Refused, Write

app = App("sales_goals")
app.sql("queries")

# A text in `Annotated` documents a parameter: `teatree functions MODEL set_goals` and the JSON Schema show it.
Dimension = Literal["site", "product", "customer", "salesperson"]
GoalPeriod = Annotated[str, "The period of the goals: `2011`, `2011-12` or `2011-12-01/2012-03-01`."]
Site = Annotated[Value, "The name of the site; a leaf is named by `leaf`."]
Leaf = Annotated[
    dict[str, Value] | None,
    "The leaf by its value in each dimension; `site` alone is that site, null that of the lines that name none.",
]
PLANS = {"task_type": "plan"}
REPORTS = {"task_type": "report"}
PAGE_ROWS = 500
NAMED_MAX = 1_000
"""Sites that a result names; their number is exact."""
LONG_MS = 600_000
"""Milliseconds that goals of many million lines may take."""


@frozen
class GoalsSet:
    """The result of `set_goals`."""

    goal_period: str
    sites: int
    leaves: int
    basis: Decimal
    goal: Decimal
    sites_without_goal: int
    without_goal: list[Value]
    """The sites whose goal is 0: without a leaf of positive basis, or with a goal below zero; the first thousand."""


@frozen
class GoalEdited:
    """The result of `edit_goal`."""

    amount: Decimal
    site_goal: Decimal
    changed_leaves: int
    """The unlocked leaves over which the rest was spread."""


@app.mutation(labels=PLANS, time_ms_max=LONG_MS)
def set_goals(
    db: Write,
    context: Context,
    lines: Annotated[Lines, Depends(find_lines)],
    goal_period: GoalPeriod,
    basis_period: Annotated[str, "The period whose lines are the basis, written in the same ways."],
    pct: Annotated[Decimal, "How many percent more than the basis."],
    pct_by_site: Annotated[dict[str, Decimal] | None, "The percentages of sites that differ."] = None,
) -> GoalsSet:
    """Compute the goals of a period: what each site sold in the basis period and `pct` percent more, over its leaves.

    A period is `2010-12-01/2011-03-01` (its first day, and the day after its last one), `2011-01` or `2011`. Goals and
    locks that the period had are replaced.
    """
    period = str(Period.parse(goal_period, "goal_period"))
    basis = Period.parse(basis_period, "basis_period")
    growth = Growth(pct, pct_by_site or {})
    if not lines.check(db, basis, growth.factor_max):
        raise Refused(f"There are no lines in the basis period {basis}.", where="basis_period")
    prepare_tables(db, lines.dimensions)
    for table in (GOALS, SITE_LOCKS):
        db.execute(f"DELETE FROM {table} WHERE goal_period = $goal_period", {"goal_period": period})
    context.progress(0.1, "spreading")
    db.execute(insert_sql(lines, basis, growth), {"goal_period": period, **growth.parameters})
    context.progress(0.9, "adding up")
    if unknown := find_unknown_sites(db, period, lines.dimensions, growth.pct_by_site):
        raise Refused(f"The basis period has no site {unknown[0]!r}.", where="pct_by_site")
    return GoalsSet(period, **sum_all(db, period, lines.dimensions, growth, NAMED_MAX))


@app.mutation(labels=PLANS)
def edit_goal(
    db: Write,
    dimensions: Annotated[Dimensions, Depends(find_dimensions)],
    goal_period: GoalPeriod,
    amount: Annotated[Decimal, "The goal, with two decimals."],
    site: Site = None,
    leaf: Leaf = None,
) -> GoalEdited:
    """Set the goal of a leaf or of a site, and lock it.

    A leaf's edit spreads what its site's goal leaves over the site's unlocked leaves, so that the site's goal stays; a
    site's edit spreads what its locked leaves leave.
    """
    period = str(Period.parse(goal_period, "goal_period"))
    cents = to_cents(amount)
    chosen = dimensions.select(site, leaf)
    sums = sum_goals(db, period, chosen)
    if not sums.leaves:
        raise Refused(f"There is no goal of {chosen} in {period}.", where="leaf" if chosen.is_leaf else "site")
    parameters = {"goal_period": period, **chosen.values}
    if chosen.is_leaf:
        sums = sum_goals(db, period, chosen.site, except_leaf=chosen)
        db.execute(
            f"UPDATE {GOALS} SET goal = $cents::BIGINT * 0.01, locked = true"
            f" WHERE goal_period = $goal_period AND {chosen.condition}",
            {**parameters, "cents": cents},
        )
        rest, site_goal = sums.goal - cents - sums.locked, sums.goal
    else:
        db.execute(f"DELETE FROM {SITE_LOCKS} WHERE goal_period = $goal_period AND {chosen.condition}", parameters)
        db.append(SITE_LOCKS, [{"goal_period": period, **chosen.values}])
        rest, site_goal = cents - sums.locked, cents
    if rest < 0:
        message = f"The locked leaves of {chosen.site} would exceed its goal by {to_amount(-rest)}."
        raise Refused(message, where="amount", hint="Unlock some, or change the goal of the site.")
    if not sums.can_change:
        message = f"{chosen.site} has no unlocked leaf of positive basis over which {to_amount(rest)} could be spread."
        raise Refused(message, where="amount", hint="Unlock some.")
    changed = spread_again(db, period, dimensions, chosen.site, rest)
    return GoalEdited(to_amount(cents), to_amount(site_goal), changed)


@app.mutation(labels=PLANS)
def unlock(
    db: Write,
    dimensions: Annotated[Dimensions, Depends(find_dimensions)],
    goal_period: GoalPeriod,
    site: Site = None,
    leaf: Leaf = None,
) -> int:
    """Unlock a leaf, or a site with its leaves, or all goals of the period; return how many goals were locked.

    No goal changes: the next edit spreads over them, too.
    """
    period = str(Period.parse(goal_period, "goal_period"))
    chosen = None if site is None and leaf is None else dimensions.select(site, leaf)
    parameters = {"goal_period": period, **(chosen.values if chosen else {})}
    within = f"goal_period = $goal_period AND {chosen.condition if chosen else 'true'}"
    unlocked = db.execute(f"UPDATE {GOALS} SET locked = false WHERE locked AND {within}", parameters)
    if chosen is None or not chosen.is_leaf:
        unlocked += db.execute(f"DELETE FROM {SITE_LOCKS} WHERE {within}", parameters)
    return unlocked


@app.query(labels=REPORTS)
def goals_by(
    db: Read,
    found: Annotated[Dimensions, Depends(find_dimensions)],
    dimensions: Annotated[list[Dimension], "Those of the rows: their sums are returned."],
    page: Annotated[int, "Which page, from 1 on."] = 1,
    goal_period: Annotated[str | None, "The period; may be left out while there are goals of one only."] = None,
) -> Dataset:
    """Return a page of the goals by some dimensions, in their order: 500 rows, fewer on the last page.

    `locked` counts the locked leaves.
    """
    if page < 1:
        raise Refused(f"There is no page {page}: the first one is 1.", where="page")
    by = found.only(dimensions)
    return db.sql(
        f"""
        SELECT {by.names}, count(*) AS leaves, sum(basis) AS basis, sum(goal) AS goal,
            count(*) FILTER (locked) AS locked
        FROM {GOALS} WHERE goal_period = $goal_period
        GROUP BY {by.names} ORDER BY {by.order} LIMIT {PAGE_ROWS} OFFSET $skipped
        """,
        {"goal_period": _only_period(db, goal_period), "skipped": (page - 1) * PAGE_ROWS},
    )


@app.query(labels=REPORTS, page_size=PAGE_ROWS)
def progress_of(
    db: Read,
    found: Annotated[Dimensions, Depends(find_dimensions)],
    lines: Annotated[Lines, Depends(find_lines)],
    goal_period: GoalPeriod,
    until: Annotated[date | None, "The first day that does not count; the end of the period if left out."] = None,
    dimensions: Annotated[list[Dimension] | None, "Those of the rows; the first one if left out."] = None,
) -> Dataset:
    """Return goals with what was sold of them before a day: `goal`, `actual`, `open`."""
    period = Period.parse(goal_period, "goal_period")
    days = period if until is None else period.until(until)
    lines.check(db, days)
    by = found.only(dimensions or [found.fields[0].name])
    return db.sql(
        f"""
        WITH planned AS (
            SELECT {by.names}, sum(goal) AS goal FROM {GOALS} WHERE goal_period = $goal_period GROUP BY {by.names}
        ),
        sold AS (
            SELECT {by.names}, sum({lines.amount}) AS actual FROM {LINES} WHERE {lines.within(days)}
            GROUP BY {by.names}
        )
        SELECT {by.either("planned", "sold")}, coalesce(goal, 0)::DECIMAL(38, 2) AS goal,
            coalesce(actual, 0)::DECIMAL(38, 2) AS actual, coalesce(goal, 0) - coalesce(actual, 0) AS open
        FROM planned FULL JOIN sold ON {by.same("planned", "sold")} ORDER BY {by.order}
        """,
        {"goal_period": str(period)},
    )


def _only_period(db: Read, goal_period: str | None) -> str:
    """Return the period that a query means."""
    if goal_period is not None:
        return str(Period.parse(goal_period, "goal_period"))
    periods = [row["goal_period"] for row in db.sql(f"SELECT DISTINCT goal_period FROM {GOALS} ORDER BY ALL").rows()]
    if len(periods) != 1:
        raise Refused(f"There are goals of {len(periods)} periods: name one.", where="goal_period")
    return str(periods[0])
