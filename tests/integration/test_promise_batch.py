"""A batch: wrong requests are found, the others commit, a used id gets its first outcome."""

from __future__ import annotations

import json
from typing import Any

import pytest

from processes import Installation, Running, rows, table, until, until_async
from teatree.storage.dead_letters import list_dead_letters, read_dead_body


async def apply_together(installation: Installation, **options: Any) -> Running:
    """Start a manager once all requests are in the log; return it when all have their outcome."""
    manager = installation.manager(**options)
    for request_id in dict.fromkeys(installation.sent):
        await installation.outcome(request_id)
    return manager


def kinds(outcomes: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Return each outcome's kind, with its code if it has an error."""
    return {i: o["kind"] if "error" not in o else f"{o['kind']} {o['error']['code']}" for i, o in outcomes.items()}


async def test_culprits(installation: Installation) -> None:
    """Of a batch with several wrong requests only these are refused, with reasons; the others commit, in order."""
    publish = installation.publish
    await publish("create_model", table("id", "v", key="id"), "create")
    for i in range(20):
        await publish("append", rows(i), f"a{i}")
    await publish("append", rows(7), "again7")
    await publish("append", rows(100, 101), "b0")
    await publish("append", rows(102, 100), "half")  # its first row must not stay
    await publish("sql", {"statement": "INSERT INTO t SELECT 102 + i, 1 FROM range(2) r(i)"}, "s0")
    await publish("sql", {"statement": "INSERT INTO t SELECT i, 1 FROM range(3) r(i)"}, "s1")
    await publish("sql", {"statement": "DROP TABLE t"}, "s2")
    await publish("nothing", {}, "unknown")
    await publish("append", b"{", "broken")
    await publish("append", {"table": "t", "rows": [{"id": 1.5}]}, "lossy")
    await publish("append", rows(200), "last")
    await apply_together(installation)
    outcomes = await installation.outcomes()
    refused = {i: kind for i, kind in kinds(outcomes).items() if kind != "done"}
    assert refused == {
        "again7": "rejected constraint",
        "half": "rejected constraint",
        "s1": "rejected constraint",
        "s2": "rejected sql_not_allowed",
        "unknown": "rejected unknown_function",
        "broken": "rejected bad_json",
        "lossy": "rejected lossy_number",
    }
    expected = [*range(20), 100, 101, 102, 103, 200]
    assert installation.read("SELECT id FROM t ORDER BY id") == [(i,) for i in expected]
    assert len({o["version"] for i, o in outcomes.items() if i != "create"}) == 1


async def test_together_as_one_by_one(installation: Installation) -> None:
    """What succeeds request by request succeeds in a batch: a key deleted and added again, a table dropped and made."""
    publish = installation.publish
    await publish("create_model", table("id", "v", key="id"), "create")
    await publish("append", rows(1, 2), "a")
    for i in range(3):
        await publish("delete", {"table": "t", "where": {"id": 1}}, f"d{i}")
        await publish("append", rows(1, v=i), f"a{i}")
        await publish("update", {"table": "t", "set": {"id": 3}, "where": {"id": 2}}, f"m{i}")
        await publish("update", {"table": "t", "set": {"id": 2}, "where": {"id": 3}}, f"b{i}")
    await publish("drop_table", {"table": "t"}, "drop")
    await publish("create_table", {"table": "t", "columns": [{"name": "id", "type": "BIGINT"}]}, "make")
    await publish("append", rows(1, 1, 1), "x")
    await publish("alter_table", {"table": "t", "add": {"name": "w", "type": "BIGINT"}}, "alter")
    await publish("append", rows(2, w=5), "y")
    await apply_together(installation)
    assert set(kinds(await installation.outcomes()).values()) == {"done"}
    assert installation.read("SELECT id, w FROM t ORDER BY id") == [(1, None), (1, None), (1, None), (2, 5)]


async def test_ids(installation: Installation) -> None:
    """A resend gets the first outcome, in its batch and later; another body under its id is refused."""
    publish = installation.publish
    await publish("create_model", table("id", key="id"), "create")
    await publish("append", rows(1), "a")
    await publish("append", rows(1), "a")
    await publish("append", rows(1), "twin")  # refused: the key is there
    await publish("append", rows(1), "twin")
    await publish("append", rows(2), "reused")
    await publish("append", rows(3), "reused")
    await apply_together(installation)
    await publish("append", rows(1), "a")
    await publish("append", rows(1), "twin")
    await publish("append", rows(2), "reused")
    await publish("append", rows(4), "reused")
    await publish("upsert", rows(1), "a")  # another function is another body
    await installation.send("append", rows(9), "end")
    found = kinds(await installation.outcomes(["create", "twin", "end"]))
    assert found == {"create": "done", "twin": "rejected constraint", "end": "done"}
    notices = await installation.notices()
    for request_id, count in (("a", 3), ("reused", 2)):
        done = [body for kind, body in notices[request_id] if kind == "done"]
        refused = [body for kind, body in notices[request_id] if kind == "rejected"]
        assert len(done) >= count
        assert len(set(done)) == 1
        assert refused
        assert all(b"request_id_reused" in body for body in refused)
    assert installation.read("SELECT id FROM t ORDER BY id") == [(1,), (2,), (9,)]


async def test_ids_over_a_crash(installation: Installation) -> None:
    """A request and its resend, in two versions that a killed manager committed and did not upload: one outcome."""
    plan = {"manager.ship.manifest.begin": {"action": "error", "hit": 2, "times": 1000}}
    manager = await installation.created(table("id"), plan)
    await installation.publish("append", rows(1), "a")
    await manager.until_printed("waits to be shipped")
    await installation.publish("append", rows(1), "a")
    await until(lambda: [*installation.local().read_write.glob("*/model.duckdb.wal")] != [])  # committed
    await manager.kill()
    await installation.publish("append", rows(2), "b")
    await apply_together(installation)
    await installation.send("append", rows(3), "c")
    await installation.outcomes()
    assert installation.read("SELECT id FROM t ORDER BY id") == [(1,), (2,), (3,)]


async def test_expected_version(installation: Installation) -> None:
    """A request that expects a version is refused if one before it, in its own batch too, changed the model since."""
    await installation.publish("create_model", table("id"), "create")
    manager = await apply_together(installation)
    version = (await installation.outcome("create"))["version"]
    assert await manager.leave() == 0
    await installation.publish("query", {"sql": "SELECT 1 AS one"}, "q")
    await installation.publish("append", {**rows(1), "expected_version": version}, "first")
    await installation.publish("append", {**rows(2), "expected_version": version}, "second")
    await installation.publish("append", {**rows(3), "expected_version": version + 100}, "future")
    await apply_together(installation)
    assert kinds(await installation.outcomes()) == {
        "create": "done",
        "q": "done",
        "first": "done",
        "second": "rejected stale_version",
        "future": "rejected unknown_version",
    }
    assert installation.read("SELECT id FROM t") == [(1,)]


@pytest.mark.parametrize(
    ("neighbours", "place"),
    [(0, None), (30, None), (0, "manager.set_aside.begin"), (0, "manager.set_aside.end")],
)
async def test_a_request_that_kills(installation: Installation, neighbours: int, place: str | None) -> None:
    """A request that crashes its manager is set aside after a few tries and kept whole; the others commit."""
    publish = installation.publish
    await publish("create_model", table("id", "v", key="id"), "create")
    for i in range(neighbours):
        await publish("append", rows(i), f"a{i}")
    await publish("update", {"table": "t", "set": {"v": 1}, "where": {"id": 666}}, "poison")
    for i in range(neighbours):
        await publish("update", {"table": "t", "set": {"v": i}, "where": {"id": i}}, f"u{i}")
    plan = {place: {"action": "crash", "hit": 1, "times": 2}} if place else None
    managers = await installation.until_done(plan, poison=666)
    assert len(managers) <= (14 if place else 8)  # the request before it, not uploaded yet, resets the count
    outcomes = await installation.outcomes()
    assert {i: kind for i, kind in kinds(outcomes).items() if kind != "done"} == {"poison": "failed set_aside"}
    assert "took its manager down" in outcomes["poison"]["error"]["message"]
    assert installation.read("SELECT id, v FROM t ORDER BY id") == [(i, i) for i in range(neighbours)]
    (letter,) = list_dead_letters(installation.chain)
    assert (letter.request_id, letter.function, letter.tries) == ("poison", "update", 3)
    assert json.loads(read_dead_body(installation.chain, letter))["where"] == {"id": 666}


async def test_groups_over_a_crash(installation: Installation) -> None:
    """A bulk sender's notices account for each request once over a crash, and repeated ones are identical."""
    publish = installation.publish
    await publish("create_model", table("id", key="id"), "create")
    for i in range(10):
        await publish("append", rows(i % 8), f"g{i}", **{"Teatree-Group": "bulk"})
    await publish("append", rows(100), "single")
    plan = {"manager.announce.end": {"action": "crash", "hit": 2, "times": 1}}
    installation.sent = ["create", "single"]
    await installation.until_done(plan)
    found = await installation.group_notices("bulk")
    for version, bodies in found.items():
        assert len(set(bodies)) == 1, version
    groups = [json.loads(bodies[0]) for bodies in found.values()]
    assert sum(g["applied"] for g in groups) == 8
    refused = [r["request_id"] for g in groups for r in g["refusals"]]
    assert sorted(refused) == ["g8", "g9"]


async def test_resends_of_a_barrier(installation: Installation) -> None:
    """A resend of an `archive` gets its outcome from the manager that reads it, once the archive exists."""
    plan = {"manager.archive.table.begin": {"action": "delay", "delay_ms": 500, "times": 2}}
    manager = await installation.created(table("id"), plan)
    await installation.publish("append", rows(1), "a1")
    await installation.publish("archive", {}, "archive")
    await installation.publish("archive", {}, "archive", **{"Teatree-Group": "early"})
    await installation.publish("append", rows(2), "a2", **{"Teatree-Group": "early"})
    await installation.send("append", rows(3), "a3")
    assert (await installation.outcome("archive"))["kind"] == "done"
    await installation.publish("archive", {}, "archive", **{"Teatree-Group": "late"})
    await installation.send("append", rows(4), "a4")

    async def all_published() -> bool:
        return bool(await installation.group_notices("early") and await installation.group_notices("late"))

    await until_async(all_published)
    for group, counts in (("early", {(0, 1), (1, 0), (1, 1)}), ("late", {(0, 1)})):
        for version, bodies in (await installation.group_notices(group)).items():
            assert len(set(bodies)) == 1, (group, version)
            notice = json.loads(bodies[0])
            assert (notice["applied"], notice["already"]) in counts
    assert await manager.leave() == 0
    assert installation.read("SELECT id FROM t ORDER BY id") == [(1,), (2,), (3,), (4,)]


async def test_a_crash_with_a_resend_of_a_barrier(installation: Installation) -> None:
    """A takeover resumes from a batch that was not published, also if a resend of an `archive` is in it."""
    manager = await installation.created(table("id"), {"manager.apply.commit.end": {"action": "crash", "hit": 2}})
    await installation.send("archive", {}, "archive")
    again = await installation.publish("archive", {}, "archive")
    assert await manager.exit_code() == -9
    manager = installation.manager()
    assert (await installation.send("append", rows(1), "a1"))["kind"] == "done"
    assert await manager.leave() == 0
    newest = installation.chain.newest()
    assert newest is not None
    assert newest.offset > again
    assert installation.read("SELECT id FROM t") == [(1,)]
