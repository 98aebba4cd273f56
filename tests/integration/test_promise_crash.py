"""A crash at each failpoint: every accepted request has its one effect and its one outcome."""

from __future__ import annotations

from functools import partial

import pytest

from places import places
from processes import Installation, Running, rows, table, until_async

FAILPOINTS = [
    "manager.announce.begin",
    "manager.announce.end",
    "manager.apply.commit.begin",
    "manager.apply.commit.end",
    "manager.archive.index.begin",
    "manager.archive.table.begin",
    "manager.capture.begin",
    "manager.capture.checkpoint.end",
    "manager.capture.end",
    "manager.catalog.record.begin",
    "manager.catalog.record.end",
    "manager.local.file.begin",
    "manager.local.link.begin",
    "manager.ship.end",
    "manager.ship.manifest.begin",
    "manager.ship.manifest.end",
    "manager.ship.pack.begin",
    "manager.ship.segment.begin",
    "manager.take_over.fence.begin",
    "manager.take_over.fence.end",
]
"""Before and after each change that outlasts the process; `test_promise_batch` has those of setting aside.

The torture harness has all places of the probe.
"""
DISPATCHER = [
    "dispatcher.launch.begin",
    "dispatcher.launch.end",
    "dispatcher.look.begin",
    "dispatcher.purge.begin",
    "dispatcher.purge.end",
    "dispatcher.reject.begin",
    "dispatcher.reject.end",
]
LATER = [
    name
    for name in FAILPOINTS
    if name.split(".")[1] in {"ship", "capture", "apply", "announce"} or name.endswith("record.begin")
]
CASES = [
    *((name, 1) for name in FAILPOINTS),
    *(pytest.param(name, 3, marks=pytest.mark.slow) for name in LATER),
]


def test_the_places_exist() -> None:
    """No name above is one that the code has lost."""
    assert {*FAILPOINTS, *DISPATCHER} <= {*places("manager"), *places("dispatcher")}


async def publish_all(installation: Installation) -> None:
    """Publish requests of many kinds: resends, a stale one, wrong ones, a query with pages, an archive."""
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
    """Two managers crash at one failpoint; with the third, all requests have one effect and one outcome each."""
    await publish_all(installation)
    plan = {name: {"action": "crash", "hit": hit, "times": 2}}
    managers = await installation.until_done(plan)
    while (code := await managers[-1].leave()) != 0:  # a follower may reach the failpoint last
        assert code == -9
        managers += await installation.until_done(plan)
    if hit == 1:
        assert [m.code for m in managers] == [-9, -9, 0]
    outcomes = await installation.outcomes()
    assert {i: o["kind"] for i, o in outcomes.items()} == {i: STATUS.get(i, "done") for i in outcomes}
    assert outcomes["q1"]["result"]["rows"] == 4
    manifests = installation.check_chain()
    assert installation.read("SELECT id, v FROM t ORDER BY id") == CONTENT
    assert manifests[-1].offset == 15


@pytest.mark.parametrize("name", DISPATCHER)
async def test_dispatcher_crash(installation: Installation, name: str) -> None:
    """Two dispatchers crash at one failpoint, their managers keep running: each request has one outcome."""
    crashes = (
        1 if name == "dispatcher.launch.end" else 2
    )  # the launched manager keeps running: there is no second launch
    plan = {name: {"action": "crash", "hit": 1, "times": crashes}}
    fast = {"TEATREE_DISPATCHER_PURGE_INTERVAL_MS": "20", "TEATREE_DISPATCHER_RETENTION_DAYS": "0.0000001"}
    await installation.publish("append", rows(1), "early")
    await installation.publish("create_model", table("id"), "create")
    await installation.publish("append", rows(1), "a1")
    codes: list[int] = []
    while len(codes) < crashes or await installation.waiting():
        dispatcher = installation.dispatcher(plan, **fast)
        await until_async(partial(_is_over, dispatcher, installation, may_live=len(codes) == crashes))
        if dispatcher.code is not None:
            codes.append(dispatcher.code)
    assert codes == [-9] * crashes
    assert (await installation.send("append", rows(2), "a2"))["kind"] == "done"
    await installation.publish("append", rows(1), "a1")
    assert (await installation.send("append", rows(3), "a3"))["kind"] == "done"
    outcomes = await installation.outcomes()
    assert {i: o["kind"] for i, o in outcomes.items() if o["kind"] != "done"} == {"early": "rejected"}
    installation.check_chain()
    assert installation.read("SELECT id FROM t ORDER BY id") == [(1,), (2,), (3,)]


async def _is_over(dispatcher: Running, installation: Installation, *, may_live: bool) -> bool:
    return dispatcher.code is not None or (may_live and not await installation.waiting())
