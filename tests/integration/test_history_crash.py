"""A crash in the middle of a restore or of a fork: one effect, one outcome, and one pin."""

from __future__ import annotations

import pytest

from processes import Installation, rows, table
from teatree.storage.retention.pins import list_pins

PLACES = [
    ("fork.pin.end", 1),
    ("fork.fetch.end", 1),
    ("manager.apply.commit.begin", 1),
    ("manager.apply.commit.end", 1),
    ("manager.capture.checkpoint.end", 1),
    ("manager.ship.manifest.begin", 1),
    ("manager.ship.manifest.begin", 3),
    *(
        pytest.param(name, 3, marks=pytest.mark.slow)
        for name in (
            "manager.capture.checkpoint.end",
            "manager.ship.pack.begin",
            "manager.ship.manifest.end",
            "manager.local.file.begin",
        )
    ),
]


@pytest.mark.parametrize(("name", "hit"), PLACES)
async def test_a_manager_dies_over_a_restore_and_a_fork(installation: Installation, name: str, hit: int) -> None:
    """Two managers crash at one failpoint; the third restores the tables, and the model after it was dropped."""
    manager = await installation.created(table("id", "v", key="id"))
    old = await installation.send("append", rows(1, 2, 3, v=5), "fill")
    await installation.send("delete", {"table": "t", "where": {"id": 2}}, "delete")
    assert await manager.leave() == 0
    await installation.publish("restore", {"version": old["version"]}, "restore")
    await installation.publish("append", rows(4), "more")
    await installation.publish("drop_model", {}, "drop")
    fork = {"from": {"model": "sales", "version": old["version"]}}
    await installation.publish("create_model", fork, "fork")
    await installation.publish("append", rows(5), "last")
    plan = {name: {"action": "crash", "hit": hit, "times": 2}}
    managers = await installation.until_done(plan)
    assert await managers[-1].leave() == 0
    outcomes = await installation.outcomes()
    assert {i: o["kind"] for i, o in outcomes.items()} == dict.fromkeys(outcomes, "done")
    installation.check_chain()
    more, drop = outcomes["more"]["version"], outcomes["drop"]["version"]
    if more < drop:  # else a crash left both for one version, which has no tables
        assert installation.read("SELECT id FROM t ORDER BY id", more) == [(1,), (2,), (3,), (4,)]
    assert installation.read("SELECT id, v FROM t ORDER BY id") == [(1, 5), (2, 5), (3, 5), (5, None)]
    assert [p.version for p in list_pins(installation.chain)] == [old["version"]]
    assert list(installation.settings.data.rglob("attached_snapshot*")) == []
