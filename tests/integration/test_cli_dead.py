"""`teatree dead`: dead letters are listed, shown, sent again and deleted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from commands import CommandResult, run_command
from processes import Installation, rows, table
from teatree.contracts.environment import connection_environ, process_environ
from teatree.storage.dead_letters import list_dead_letters

Run = Callable[..., CommandResult]


@pytest.fixture
def teatree(installation: Installation) -> Run:
    """Return how to run a command against the installation."""

    def run(*arguments: str) -> CommandResult:
        return run_command({**process_environ(), **connection_environ(installation.settings)}, *arguments)

    return run


async def test_set_aside(installation: Installation, teatree: Run, tmp_path: Path) -> None:
    """Each command works, in text and in JSON; the request takes effect when it is sent again under a new id."""
    assert "The object store has no model 'sales'" in teatree("dead", "sales").err
    await installation.publish("create_model", table("id", "v", key="id"), "create")
    await installation.publish("append", rows(666, v=1), "row")
    await installation.publish("update", {"table": "t", "set": {"v": 7}, "where": {"id": 666}}, "poison")
    managers = await installation.until_done(poison=666)
    assert (await installation.outcome("poison"))["kind"] == "failed"
    assert await managers[-1].leave() == 0
    installation.manager()  # one that the request does not kill

    listed = teatree("dead", "sales", "--json").json
    assert (listed["request_id"], listed["function"], listed["tries"]) == ("poison", "update", 3)
    assert "poison" in teatree("dead", "sales").out
    shown = teatree("dead", "sales", "poison", "--json").json
    assert shown["arguments"] == {"table": "t", "set": {"v": 7}, "where": {"id": 666}}
    assert '"where"' in teatree("dead", "sales", "poison").out
    saved = tmp_path / "body"
    assert teatree("dead", "sales", "poison", "--save", str(saved)).code == 0
    assert json.loads(saved.read_bytes()) == shown["arguments"]

    sent = teatree("dead", "sales", "poison", "--send", "--drop", "--json")
    assert sent.code == 0, sent.err
    assert sent.json["result"] == {"rows": 1}
    assert installation.read("SELECT id, v FROM t") == [(666, 7)]
    assert list_dead_letters(installation.chain) == []
    again = teatree("dead", "sales", "poison")
    assert (again.code, again.out) == (3, "")
    assert "unknown_request" in again.err
    assert teatree("dead", "sales", "--send").code == 2
