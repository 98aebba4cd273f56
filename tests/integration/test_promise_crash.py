"""A crash at each place: every accepted request has its one effect and its one outcome, whatever dies when."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from processes import Installation, rows, table

SOURCES = Path(__file__).parents[2]
FAILPOINTS = sorted(
    {
        name
        for folder in ("manager", "src")
        for path in (SOURCES / folder).rglob("*.py")
        for name in re.findall(r'failpoint\("(manager\.[a-z_.]+)"\)', path.read_text())
    }
)
LATER = [
    name for name in FAILPOINTS if name.split(".")[1] in {"ship", "capture", "apply", "say"} or name.endswith("record")
]
CASES = [*((name, 1) for name in FAILPOINTS), *((name, 3) for name in LATER)]


async def publish_all(installation: Installation) -> None:
    """Have requests of many kinds accepted: resends, a stale one, wrong ones, a query with pages, an archive."""
    publish = installation.publish
    await publish("create_model", table("id", "v", key="id"), "create")
    await publish("append", rows(1, 2, 3), "a1")
    await publish("append", {"table": "t", "rows": [{"id": "x"}]}, "wrong")
    await publish("append", rows(1), "twice")
    await publish("append", rows(4), "a2")
    await publish("append", rows(1, 2, 3), "a1")
    await publish("update", {"table": "t", "set": {"v": 7}, "where": {"id": 2}}, "u1")
    await publish("query", {"sql": "SELECT id FROM t ORDER BY id", "page_size": 2}, "q1")
    await publish("archive", {}, "archive")
    await publish("delete", {"table": "t", "where": {"id": 1}}, "d1")
    await publish("append", rows(1, v=9), "a3")
    await publish("append", {**rows(5), "expected_version": 1}, "stale")
    await publish("append", rows(4), "a2")
    await publish("query", {"sql": "SELECT id FROM t ORDER BY id", "page_size": 2}, "q1")
    await publish("upsert", {"table": "t", "rows": [{"id": 5, "v": 5}, {"id": 6, "v": 6}]}, "up")
    installation.sent = list(dict.fromkeys(installation.sent))


STATUS = {"wrong": "rejected", "twice": "rejected", "stale": "rejected"}
CONTENT = [(1, 9), (2, 7), (3, None), (4, None), (5, 5), (6, 6)]


@pytest.mark.parametrize(("name", "hit"), CASES)
async def test_crash(installation: Installation, name: str, hit: int) -> None:
    """A manager dies twice at one place; with the third, all requests have one effect and one outcome each."""
    await publish_all(installation)
    plan = {name: {"action": "crash", "hit": hit, "times": 2}}
    managers = await installation.until_done(plan)
    assert await managers[-1].leave() == 0
    if hit == 1:
        assert [m.code for m in managers] == [-9, -9, 0]
    outcomes = await installation.told()
    assert {i: o["kind"] for i, o in outcomes.items()} == {i: STATUS.get(i, "done") for i in outcomes}
    assert outcomes["q1"]["result"]["rows"] == 4
    manifests = installation.check_chain()
    assert installation.read("SELECT id, v FROM t ORDER BY id") == CONTENT
    assert manifests[-1].offset == 15
