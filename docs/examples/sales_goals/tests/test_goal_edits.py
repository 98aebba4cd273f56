"""Edits lock one goal and spread the rest again, as plain Python does; what is refused changes nothing."""

from __future__ import annotations

import random
from decimal import Decimal
from typing import Any

import pytest

import goals_oracle
from drawn_lines import draw
from goals_oracle import GoalPlan, ImpossibleEdit
from plan_model import PlanModel, plan_model
from teatree import Refused

PERIOD = "2021"


def edit(plan: GoalPlan, step: tuple[str, Any, int]) -> bool:
    """Edit the oracle's plan; return False if that is refused."""
    what, of, amount = step
    before = dict(plan.goal)
    try:
        if what == "leaf":
            plan.edit_leaf(of, amount)
        else:
            plan.edit_site(of, amount)
    except ImpossibleEdit:
        plan.goal = before
        return False
    return True


def ask(model: PlanModel, step: tuple[str, Any, int]) -> bool:
    """Edit the model; return False if that is refused."""
    what, of, amount = step
    named = {"leaf": dict(zip(model.dimensions, of, strict=True))} if what == "leaf" else named_site(of)
    try:
        model.call("edit_goal", goal_period=PERIOD, amount=Decimal(amount).scaleb(-2), **named)
    except Refused:
        return False
    return True


def named_site(site: Any) -> dict[str, Any]:
    """Return the arguments that name a site."""
    return {"leaf": {"site": None}} if site is None else {"site": site}


def draw_step(dice: random.Random, model: PlanModel, plan: GoalPlan) -> tuple[str, Any, int]:
    """Return an edit, some of which are refused."""
    leaf = dice.choice(list(plan.basis))
    site = plan.site_of(leaf)
    total = sum(goal for each, goal in plan.goal.items() if plan.site_of(each) == site)
    amount = dice.choice((0, 1, plan.goal[leaf], plan.goal[leaf] + 1, total, dice.randrange(100_000)))
    can_name_site = model.dimensions[0] == "site" and len(model.dimensions) > 1
    return ("site", site, amount) if can_name_site and dice.random() < 0.3 else ("leaf", leaf, amount)


@pytest.mark.parametrize("seed", range(6))
def test_edits_are_those_of_the_oracle(seed: int) -> None:
    """After each, all goals and locks are the same."""
    lines, dice = draw(seed, rows=60), random.Random(seed)
    with plan_model(lines.table, lines.dimensions) as model:
        model.call("set_goals", goal_period=PERIOD, basis_period="2020", pct=Decimal(10))
        plan = GoalPlan(lines.site_of, model.column("basis"), model.column("goal"))
        for _ in range(15):
            if plan.locked and dice.random() < 0.2:
                leaf = dice.choice(sorted(plan.locked, key=goals_oracle.by_order))
                plan.locked.remove(leaf)
                named = dict(zip(model.dimensions, leaf, strict=True))
                assert model.call("unlock", goal_period=PERIOD, leaf=named) == 1
            step = draw_step(dice, model, plan)
            assert ask(model, step) == edit(plan, step), step
            assert model.column("goal") == plan.goal, step
            assert model.locked() == plan.locked, step
