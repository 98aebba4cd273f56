"""A request beyond its limits fails alone: time, memory, temporary disk, and what DuckDB allocates outside of them."""

from __future__ import annotations

from typing import Any

from processes import Installation, rows, table
from teatree.contracts.exit_reason import EXIT_STUCK
from teatree.storage.dead_letters import list_dead_letters

LIMITS: dict[str, Any] = {
    "TEATREE_LIMITS_MEMORY_BYTES_MAX": "60000000",
    "TEATREE_LIMITS_TEMP_BYTES_MAX": "20000000",
    "TEATREE_LIMITS_QUERY_TIME_MS_MAX": "1500",
    "TEATREE_LIMITS_REQUEST_TIME_MS_MAX": "1500",
    "TEATREE_MANAGER_PROCESS_MEMORY_BYTES_MAX": "2500000000",
}
FOR_EVER = "FROM range(10000000) a(i), range(10000000) b(j) WHERE hash(i, j) = 7"
SORTED = "SELECT row_number() OVER (ORDER BY hash(i)) AS n FROM range(9000000) r(i)"
BEYOND: dict[str, tuple[str, dict[str, Any], str]] = {
    "time": ("query", {"sql": f"SELECT count(*) {FOR_EVER}"}, "timed_out"),
    "time_sql": ("sql", {"statement": f"INSERT INTO t SELECT i, j {FOR_EVER}"}, "timed_out"),
    "disk": (
        "query",
        {"sql": f"SELECT sum(n) FROM ({SORTED})"},
        "over_limit",
    ),
    "memory": ("query", {"sql": "SELECT length(string_agg(repeat('y', 1000000))) FROM range(2000) r(i)"}, "over_limit"),
    "plan": ("query", {"sql": "SELECT length(repeat('x', 3000000000))"}, "over_limit"),
    "plan_sql": ("sql", {"statement": "UPDATE t SET v = length(repeat('x', 3000000000))"}, "over_limit"),
}


async def test_beyond_its_limits(installation: Installation) -> None:
    """Each fails with the code of its limit, the requests around it are done, and the manager lives."""
    manager = await installation.created(table("id", "v"), **LIMITS)
    await installation.publish("append", rows(0, v=1), "first")
    for number, (name, (function, body, _)) in enumerate(BEYOND.items()):
        await installation.publish(function, body, name)
        await installation.publish("append", rows(number + 1, v=1), f"after_{name}")
    found = {name: await installation.outcome(name) for name in installation.sent}
    codes = {name: (o["kind"], o["error"]["code"]) for name, o in found.items() if "error" in o}
    assert codes == {name: ("failed", code) for name, (_, _, code) in BEYOND.items()}
    assert all("limit" in found[name]["error"]["message"] for name in codes)
    assert await manager.leave() == 0
    assert installation.read("SELECT id, v FROM t ORDER BY id") == [(i, 1) for i in range(len(BEYOND) + 1)]


NEVER = "SELECT levenshtein(repeat('a', 1000000), repeat('b', 1000000))"
SHORT: dict[str, Any] = {
    "TEATREE_LIMITS_QUERY_TIME_MS_MAX": "300",
    "TEATREE_LIMITS_REQUEST_TIME_MS_MAX": "300",
    "TEATREE_LIMITS_STUCK_MS_MAX": "200",
}


async def test_what_no_interrupt_reaches_ends_its_manager_once(installation: Installation) -> None:
    """Each such request costs one manager and is `timed_out` without another try; those around it are done, once.

    They come in one batch, twice under the same id, while the manager may leave as idle, and nothing is set aside.
    """
    await installation.publish("create_model", table("id", key="id"), "create")
    await installation.publish("append", rows(1), "before")
    await installation.publish("query", {"sql": NEVER}, "query")
    await installation.publish("append", rows(2), "between")
    for _ in range(2):
        await installation.publish("sql", {"statement": f"INSERT INTO t {NEVER}"}, "sql")
    await installation.publish("append", rows(3), "after")
    installation.sent = list(dict.fromkeys(installation.sent))
    managers = await installation.until_done(TEATREE_MANAGER_IDLE_EXIT_MS="100", **SHORT)
    assert [m.code for m in managers[:-1]] == [EXIT_STUCK] * 2
    outcomes = await installation.told()
    codes = {name: o["error"]["code"] for name, o in outcomes.items() if o["kind"] != "done"}
    assert codes == {"query": "timed_out", "sql": "timed_out"}
    assert installation.read("SELECT id FROM t ORDER BY id") == [(1,), (2,), (3,)]
    assert not list_dead_letters(installation.chain)
    installation.check_chain()


async def test_a_manager_killed_before_it_can_answer_leaves_what_it_knows(installation: Installation) -> None:
    """The successor that dies over the neighbours does not make the next one try the endless request again."""
    await installation.publish("create_model", table("id", key="id"), "create")
    await installation.publish("append", rows(1), "before")
    await installation.publish("query", {"sql": NEVER}, "query")
    first = installation.manager(**SHORT)
    assert await first.exit_code() == EXIT_STUCK
    second = installation.manager({"manager.apply.before_commit": {"action": "crash"}}, **SHORT)
    assert await second.exit_code() not in (0, EXIT_STUCK)
    managers = await installation.until_done(**SHORT)
    assert len(managers) == 1
    assert (await installation.outcome("query"))["error"]["code"] == "timed_out"
