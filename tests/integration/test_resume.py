"""A model whose managers crash repeatedly for one reason is shown as stopped, and an operator can resume it."""

from __future__ import annotations

from typing import Any

import orjson

from processes import MODEL, Installation, rows, table, until_async
from teatree.client.resume import resume
from teatree.client.session import Session


async def test_resume_from_the_store(installation: Installation) -> None:
    """After three crashes the catalog has the error; `resume --restore` takes the newest version and loses nothing."""
    manager = await installation.created(table("id"))
    await installation.send("append", rows(1), "a1")
    assert await manager.leave() == 0
    installation.dispatcher({"manager.take_over.fence.begin": {"action": "crash", "hit": 1, "times": 8}})
    await installation.publish("append", rows(2), "a2")

    def state() -> tuple[str, Any]:
        with installation.postgres() as con:
            found = con.execute("SELECT state, error FROM goal_model WHERE name = %s", (MODEL,)).fetchone()
        assert found is not None
        return found[0], found[1]

    async def is_stopped() -> bool:
        return state()[0] == "stopped"

    await until_async(is_stopped)
    assert "signal 9" in state()[1]["message"]
    async with Session(installation.settings) as session:
        health = await resume(session, MODEL, restore=True, timeout_ms=60_000)
    assert health["state"] == "active"
    assert (await installation.outcome("a2"))["kind"] == "done"
    assert list(installation.local().quarantine.glob("*/model.duckdb"))
    assert not installation.local().restore_wanted.exists()
    assert installation.read("SELECT id FROM t ORDER BY id") == [(1,), (2,)]

    async def is_active() -> bool:
        return state() == ("active", None)

    await until_async(is_active)


async def test_a_manager_records_why_it_ends(installation: Installation) -> None:
    """The error that ends a manager is kept in a file for the dispatcher."""
    manager = await installation.created(table("id"))
    assert await manager.leave() == 0
    assert not installation.local().last_exit.exists()
    failed = installation.manager(TEATREE_STORE_URL=(installation.folder / "another-store").as_uri())
    assert await failed.exit_code() == 78
    found = orjson.loads(installation.local().last_exit.read_bytes())
    assert (found["pid"], found["code"], found["is_passing"]) == (failed.pid, "corrupt", False)
