"""A request beyond its limits fails alone: time, memory, temporary disk, and memory beyond DuckDB's account."""

from __future__ import annotations

from typing import Any

from processes import Installation, rows, table
from teatree.contracts.exit_reason import EXIT_STUCK
from teatree.storage.dead_letters import list_dead_letters

TIMES: dict[str, Any] = {
    "TEATREE_LIMITS_QUERY_TIME_MS_MAX": "1000",
    "TEATREE_LIMITS_REQUEST_TIME_MS_MAX": "1000",
}
SIZES: dict[str, Any] = {
    "TEATREE_LIMITS_MEMORY_BYTES_MAX": "60000000",
    "TEATREE_LIMITS_TEMP_BYTES_MAX": "20000000",
    "TEATREE_MANAGER_PROCESS_MEMORY_BYTES_MAX": "2500000000",
}
FOR_EVER = "FROM range(10000000) a(i), range(10000000) b(j) WHERE hash(i, j) = 7"
SORTED = "SELECT row_number() OVER (ORDER BY hash(i)) AS n FROM range(9000000) r(i)"
BEYOND_TIME: dict[str, tuple[str, dict[str, Any]]] = {
    "time": ("query", {"sql": f"SELECT count(*) {FOR_EVER}"}),
    "time_sql": ("sql", {"statement": f"INSERT INTO t SELECT i, j {FOR_EVER}"}),
}
BEYOND_SIZE: dict[str, tuple[str, dict[str, Any]]] = {
    "disk": ("query", {"sql": f"SELECT sum(n) FROM ({SORTED})"}),
    "memory": ("query", {"sql": "SELECT length(string_agg(repeat('y', 1000000))) FROM range(2000) r(i)"}),
    "plan": ("query", {"sql": "SELECT length(repeat('x', 3000000000))"}),
    "plan_sql": ("sql", {"statement": "UPDATE t SET v = length(repeat('x', 3000000000))"}),
}


async def test_beyond_its_limits(installation: Installation) -> None:
    """Each fails with the code of its limit, the requests around it are done, and the manager keeps running.

    Those beyond a size have no limit of time, for slow machines.
    """
    manager = await installation.created(table("id", "v"), **TIMES)
    await installation.publish("append", rows(0, v=1), "first")
    await check_failures(installation, BEYOND_TIME, "timed_out")
    assert await manager.leave() == 0
    manager = installation.manager(**SIZES)
    await check_failures(installation, BEYOND_SIZE, "over_limit")
    assert await manager.leave() == 0
    good = len(BEYOND_TIME) + len(BEYOND_SIZE) + 1
    assert installation.read("SELECT count(*), min(v), max(v) FROM t") == [(good, 1, 1)]


async def check_failures(
    installation: Installation, requests: dict[str, tuple[str, dict[str, Any]]], code: str
) -> None:
    """Send requests with an append behind each, and check how all of them end."""
    for number, (name, (function, body)) in enumerate(requests.items()):
        await installation.publish(function, body, name)
        await installation.publish("append", rows(number + 1, v=1), f"after_{name}")
    found = {name: await installation.outcome(name) for name in installation.sent}
    codes = {name: (found[name]["kind"], found[name]["error"]["code"]) for name in requests}
    assert codes == dict.fromkeys(requests, ("failed", code))
    assert all("limit" in found[name]["error"]["message"] for name in requests)
    assert all("error" not in found[f"after_{name}"] for name in requests)


NEVER = "SELECT levenshtein(repeat('a', 1000000), repeat('b', 1000000))"
SHORT: dict[str, Any] = {
    "TEATREE_LIMITS_QUERY_TIME_MS_MAX": "300",
    "TEATREE_LIMITS_REQUEST_TIME_MS_MAX": "300",
    "TEATREE_LIMITS_STUCK_MS_MAX": "200",
}


async def test_a_request_that_cannot_be_interrupted_ends_its_manager_once(installation: Installation) -> None:
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
    outcomes = await installation.outcomes()
    codes = {name: o["error"]["code"] for name, o in outcomes.items() if o["kind"] != "done"}
    assert codes == {"query": "timed_out", "sql": "timed_out"}
    assert installation.read("SELECT id FROM t ORDER BY id") == [(1,), (2,), (3,)]
    assert not list_dead_letters(installation.chain)
    installation.check_chain()


async def test_a_timed_out_request_is_not_tried_again_after_a_crash(installation: Installation) -> None:
    """When the successor crashes over the requests around it, the next manager does not try the endless one again."""
    await installation.publish("create_model", table("id", key="id"), "create")
    await installation.publish("append", rows(1), "before")
    await installation.publish("query", {"sql": NEVER}, "query")
    first = installation.manager(**SHORT)
    assert await first.exit_code() == EXIT_STUCK
    second = installation.manager({"manager.apply.commit.begin": {"action": "crash"}}, **SHORT)
    assert await second.exit_code() not in (0, EXIT_STUCK)
    managers = await installation.until_done(**SHORT)
    assert len(managers) == 1
    assert (await installation.outcome("query"))["error"]["code"] == "timed_out"


WORDS = {"table": "w", "columns": [{"name": "id", "type": "BIGINT"}, {"name": "v", "type": "VARCHAR"}]}
TOO_BIG = [
    "list_aggregate(range(500000000), 'count')::VARCHAR",
    "length(repeat('x', 500000000)::VARIANT::VARCHAR)::VARCHAR",
    "repeat('x', 3000000000)",
    "repeat('x', 300000000 + id)",
    "(SELECT len(list(i))::VARCHAR FROM range(50000000) r(i))",
]
"""Texts that take gigabytes, most of them in one call of one function."""


async def test_one_call_that_takes_all_memory_fails_alone(installation: Installation) -> None:
    """Any such statement fails with `over_limit` in the same process, and the requests around it are done."""
    tight: dict[str, Any] = {
        "TEATREE_LIMITS_MEMORY_BYTES_MAX": "64000000",
        "TEATREE_LIMITS_UNACCOUNTED_BYTES_MAX": "100000000",
        "TEATREE_LIMITS_ROWS_BYTES_MAX": "100000000",
    }
    manager = await installation.created({"tables": [*table("id")["tables"], WORDS]}, **tight)
    await installation.publish("append", {"table": "w", "rows": [{"id": 1, "v": "a"}]}, "first")
    too_big: list[str] = []
    for text in TOO_BIG:
        for function, body in (
            ("sql", {"statement": f"UPDATE w SET v = {text}"}),
            ("query", {"sql": f"SELECT {text} AS v FROM w"}),
        ):
            too_big.append(f"big-{len(too_big)}")
            await installation.publish(function, body, too_big[-1])
            await installation.publish("append", rows(len(too_big)), f"after-{len(too_big)}")
    found = {name: await installation.outcome(name) for name in installation.sent}
    codes = {name: o["error"]["code"] for name, o in found.items() if o["kind"] != "done"}
    assert codes == dict.fromkeys(too_big, "over_limit")
    assert await manager.leave() == 0
    assert installation.read("SELECT id, v FROM w") == [(1, "a")]
    assert installation.read("SELECT id FROM t ORDER BY id") == [(i + 1,) for i in range(len(too_big))]
