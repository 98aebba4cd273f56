"""One fault: what goes wrong, when, and for which model."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import frozen

from torture.stage import Stage

MANAGER_WAIT_S = 1.5
"""Seconds that a fault waits for its model's manager to start."""


@frozen
class Fault:
    """One thing that goes wrong, and when."""

    after_s: float
    """Seconds after the end of the one before."""
    kind: str
    model: str
    chance: float
    """From 0 to 1: chooses what the fault leaves open (a position, a failpoint)."""
    last_s: float
    """How long it lasts, if it lasts."""


class ViolationError(Exception):
    """The fault's own check found a violation."""


Inject = Callable[[Stage, Fault], str]
"""Injects the fault, returns when it is over, and describes what was done."""


def running_pid(stage: Stage, fault: Fault) -> int | None:
    """Return the manager's pid; waits a little for one that is starting."""
    deadline = time.monotonic() + MANAGER_WAIT_S
    while (pid := stage.manager_pid(fault.model)) is None and time.monotonic() < deadline:
        time.sleep(0.02)
    return pid


def arm(stage: Stage, name: str, rule: dict[str, Any]) -> None:
    """Arm a failpoint for processes that start from now on."""
    for marker in _markers(stage, name):
        marker.unlink()
    part = stage.plan.with_suffix(".part")
    part.write_text(json.dumps({name: rule}))
    part.replace(stage.plan)


def times_fired(stage: Stage, name: str) -> int:
    """Return how often it has fired since it was armed."""
    return len(_markers(stage, name))


def disarm(stage: Stage, name: str, times: int) -> int:
    """Disarm it, also in processes that have read the plan; return how often it has fired."""
    stage.plan.write_text("{}")
    fired = times_fired(stage, name)
    for turn in range(times):
        stage.folder.joinpath(f"{stage.plan.name}.{name}.{turn}").touch()
    return fired


def _markers(stage: Stage, name: str) -> list[Path]:
    return list(stage.folder.glob(f"{stage.plan.name}.{name}.*"))
