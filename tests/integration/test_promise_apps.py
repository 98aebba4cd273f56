"""Functions of an app behind the queue, in a real manager: what they do wrong harms themselves alone."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from installed_apps import APPS, path_with, write_app
from processes import MODEL, Installation, rows, table
from teatree.contracts.exit_reason import EXIT_STUCK
from teatree.messaging.notices import last_notice
from teatree.storage.dead_letters import list_dead_letters

NUMBERS = {"table": "numbers", "columns": [{"name": "n", "type": "BIGINT"}]}
BODY = {"tables": [*table("id")["tables"], NUMBERS], "app": "goals"}
GOALS: dict[str, Any] = dict(path_with(APPS))
SHORT: dict[str, Any] = {
    **GOALS,
    "TEATREE_LIMITS_LOAD_TIME_MS_MAX": "300",
    "TEATREE_LIMITS_STUCK_MS_MAX": "200",
    "TEATREE_MANAGER_LEASE_MS": "2000",
}
ACME = """
from teatree import App, Write
app = App("acme")

@app.mutation
def add(db: Write, n: int) -> str:
    db.append("numbers", [{{"n": n}}])
    return "{word}"
"""


async def misbehave(installation: Installation, *how: str) -> None:
    """Create a model and send it requests that do bad things, each between two appends."""
    await installation.publish("create_model", BODY, "create")
    for number, name in enumerate(how):
        await installation.publish("append", rows(2 * number), f"before-{name}")
        await installation.publish("misbehave", {"how": name}, name)
        await installation.publish("append", rows(2 * number + 1), f"after-{name}")


async def errors_of(installation: Installation, *how: str) -> dict[str, str]:
    """Return the errors' messages by request, after a check that all others are done, once."""
    outcomes = await installation.outcomes()
    failed = {name: outcome["error"] for name, outcome in outcomes.items() if outcome["kind"] != "done"}
    assert set(failed) == set(how)
    assert installation.read("SELECT id FROM t ORDER BY id") == [(n,) for n in range(2 * len(how))]
    assert installation.read("SELECT count(*) FROM numbers") == [(0,)]
    installation.check_chain()
    return {name: f"{error['code']}: {error['message']}" for name, error in failed.items()}


ENDLESS = [
    ("sleep", EXIT_STUCK),
    ("keep_the_lock", -signal.SIGALRM),
    pytest.param("sleep_in_c", EXIT_STUCK, marks=pytest.mark.slow),
    pytest.param("loop", EXIT_STUCK, marks=pytest.mark.slow),
    pytest.param("match", -signal.SIGALRM, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("how", "code"), ENDLESS)
async def test_a_function_that_does_not_end(installation: Installation, how: str, code: int) -> None:
    """It ends its manager once, also if it lets no other thread run, and is not tried again; the error has its line."""
    await misbehave(installation, how)
    managers = await installation.until_done(**SHORT)
    assert [manager.code for manager in managers] == [code, None]
    (error,) = (await errors_of(installation, how)).values()
    assert error.startswith("timed_out: misbehave ran longer than its limit")
    assert "goals_app/functions.py:" in error
    assert not list_dead_letters(installation.chain)


@pytest.mark.slow
async def test_a_manager_that_is_paused_while_a_function_runs(installation: Installation) -> None:
    """The pause is no fault of the function: it is applied, by this manager or by the next one."""
    await installation.publish("create_model", BODY, "create")
    manager = installation.manager(**GOALS, TEATREE_MANAGER_LEASE_MS="4000")  # a busy host pauses it for a second, too
    await installation.publish("slow", {"seconds": 1}, "slow")
    await manager.until_printed("slow begins")
    manager.send(signal.SIGSTOP)
    await asyncio.sleep(8)
    manager.send(signal.SIGCONT)
    await installation.until_done(**GOALS)
    assert (await installation.outcome("slow"))["result"] == "slept"


async def test_a_function_that_ends_its_process(installation: Installation) -> None:
    """It is tried a few times and set aside, as any request that crashes its manager; its neighbours are done."""
    await misbehave(installation, "end")
    managers = await installation.until_done(**GOALS, TEATREE_LIMITS_KILL_TRIES_MAX="2")
    assert {manager.code for manager in managers[:-1]} == {3}
    (error,) = (await errors_of(installation, "end")).values()
    assert error.startswith("set_aside:")
    assert [letter.request_id for letter in list_dead_letters(installation.chain)] == ["end"]


async def test_what_a_function_prints_and_reports(installation: Installation) -> None:
    """Its output is in the manager's log at once, and its progress is published while it runs."""
    manager = await installation.created(BODY, speed=5, **GOALS)
    assert (await installation.send("misbehave", {"how": "print"}, "print"))["result"] == "printed"
    await manager.until_printed("printed by a function")
    assert (await installation.send("misbehave", {"how": "exit"}, "exit"))["error"]["code"] == "app_error"
    assert (await installation.send("slow", {"seconds": 0.8, "steps": 2}, "slow"))["result"] == "slept"
    progress = await last_notice(installation.bus, installation.bus.subjects.notify(MODEL, "slow", "progress"))
    assert progress is not None
    found = json.loads(progress.body)
    assert (found["fraction"], found["text"], found["function"]) == (0.5, "step 1", "slow")
    assert manager.code is None


async def test_a_new_version_behind_use_app(installation: Installation, tmp_path: Path) -> None:
    """Requests before `use_app` in the log meet the old code, those after it the new one; the dispatcher restarts."""
    write_app(tmp_path / "apps", "acme", ACME.format(word="old"))
    environ: dict[str, Any] = dict(path_with(tmp_path / "apps"))
    manager = await installation.created({**BODY, "app": "acme"}, **environ)
    await installation.send("add", {"n": 1}, "first")
    write_app(tmp_path / "apps", "acme", ACME.format(word="new"), version="2")
    await installation.publish("add", {"n": 2}, "before")
    await installation.publish("use_app", {"app": "acme"}, "use")
    await installation.publish("add", {"n": 3}, "after")
    assert await manager.exit_code() == 0
    await installation.until_done(**environ)
    outcomes = await installation.outcomes()
    assert [outcomes[name]["result"] for name in ("first", "before", "use", "after")] == [
        "old",
        "old",
        {"app": "acme"},
        "new",
    ]
    assert [outcomes[name]["app"]["version"] for name in ("first", "before", "after")] == ["1", "1", "2"]
    newest = installation.chain.newest()
    assert newest is not None
    assert newest.app is not None
    assert (newest.options.app, newest.app.version) == ("acme", "2")
    assert json.loads(newest.to_json())["app"]["code_hash"] == outcomes["after"]["app"]["code_hash"]


async def test_a_dispatchers_managers(installation: Installation) -> None:
    """One that left for another app is followed by one that has it; a thread that an app leaves keeps none running."""
    installation.dispatcher(**GOALS)
    await installation.publish("create_model", {**BODY, "app": None}, "create")
    await installation.publish("touch", {"n": 1}, "too-early")
    await installation.publish("use_app", {"app": "goals"}, "use")
    await installation.publish("touch", {"n": 1}, "touch")
    assert (await installation.outcome("touch"))["result"] == 1
    assert (await installation.outcome("too-early"))["error"]["code"] == "unknown_function"
    assert (await installation.send("misbehave", {"how": "thread"}, "thread"))["kind"] == "done"
    pid = installation.manager_pid()
    assert pid is not None
    os.kill(pid, signal.SIGTERM)
    await installation.until_ended(pid)
    assert "ending beside threads that an app left: left" in installation.local().log.read_text()
