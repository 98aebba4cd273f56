"""A request beyond its limits fails alone: time, memory, temporary disk, and what DuckDB allocates outside of them."""

from __future__ import annotations

from typing import Any

from processes import Installation, rows, table

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
