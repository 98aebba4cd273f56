"""A model's incarnations: dropped, created again, with a crash anywhere in between."""

from __future__ import annotations

import json

import pytest

from processes import MODEL, Installation, rows, table, until
from teatree.storage.archives import archived_versions


async def test_drop_and_create(installation: Installation) -> None:
    """Between its incarnations a model's requests are refused, once each; afterwards version numbers continue."""
    installation.dispatcher()
    await installation.send("create_model", table("id"), "create")
    first = await installation.send("append", rows(1), "a1")
    assert (await installation.send("drop_model", {}, "drop"))["kind"] == "done"
    dropped = installation.chain.newest_version()
    for i in range(3):
        outcome = await installation.send("append", rows(i), f"between{i}")
        assert (outcome["kind"], outcome["error"]["code"]) == ("rejected", "unknown_model")
    created = await installation.send("create_model", table("id", "v"), "create2")
    assert created["kind"] == "done"
    assert created["version"] > dropped
    assert (await installation.send("append", rows(7, v=7), "a2"))["kind"] == "done"
    await installation.publish("append", rows(1), "a1")
    assert (await installation.send("append", rows(8), "a3"))["kind"] == "done"
    outcomes = await installation.outcomes()
    assert outcomes["a1"] == first
    notices = await installation.notices()
    assert [len(notices[f"between{i}"]) for i in range(3)] == [1, 1, 1]
    manifests = installation.check_chain()
    assert [m.state.value for m in manifests if m.version == dropped] == ["dropped"]
    assert installation.read("SELECT id, v FROM t ORDER BY id") == [(7, 7), (8, None)]
    assert installation.read("SELECT id FROM t", first["version"]) == [(1,)]


async def test_an_id_has_one_outcome_whatever_begins_or_ends(installation: Installation) -> None:
    """An id that got its outcome outside an incarnation keeps it within one, and the other way round."""
    installation.dispatcher()
    early = await installation.send("append", rows(1), "early")
    assert early["error"]["code"] == "unknown_model"
    await installation.send("create_model", table("id"), "create")
    done = await installation.send("append", rows(2), "done")
    await installation.publish("append", rows(1), "early")
    await installation.publish("append", rows(9), "early")
    assert (await installation.send("drop_model", {}, "drop"))["kind"] == "done"
    await installation.publish("append", rows(2), "done")
    await installation.publish("append", rows(1), "early")
    await installation.send("append", rows(3), "last")
    await installation.send("create_model", table("id"), "create2")
    await installation.send("append", rows(1), "after")
    notices = await installation.notices()
    assert {body for _, body in notices["done"]} == {notices["done"][0][1]}
    assert json.loads(notices["done"][0][1]) == done
    own = {body: json.loads(body) for _, body in notices["early"]}
    assert len(notices["early"]) >= 4
    assert sorted(n["error"]["code"] for n in own.values()) == ["request_id_reused", "unknown_model"]
    assert early in own.values()
    assert installation.read("SELECT id FROM t") == [(1,)]
    assert installation.read("SELECT id FROM t", done["version"]) == [(2,)]


@pytest.mark.parametrize(
    "place",
    [
        "manager.apply.commit.end",
        pytest.param("manager.capture.begin", marks=pytest.mark.slow),
        "manager.ship.manifest.begin",
        pytest.param("manager.ship.manifest.end", marks=pytest.mark.slow),
    ],
)
async def test_crash_during_a_drop(installation: Installation, place: str) -> None:
    """A crash while a drop is published, with the next incarnation waiting in the log: both are whole."""
    publish = installation.publish
    await publish("create_model", table("id"), "create")
    await publish("append", rows(1), "a1")
    await publish("drop_model", {}, "drop")
    await publish("append", rows(2), "between")
    await publish("create_model", table("id"), "create2")
    await publish("append", rows(3), "a2")
    hit = 2 if place.endswith("commit.end") else 3  # create_model is no transaction of a batch
    installation.dispatcher({place: {"action": "crash", "hit": hit, "times": 1}})
    assert (await installation.outcome("a2"))["kind"] == "done"
    outcomes = await installation.outcomes()
    assert {i: o["kind"] for i, o in outcomes.items() if o["kind"] != "done"} == {"between": "rejected"}
    assert outcomes["between"]["error"]["code"] == "unknown_model"
    installation.check_chain()
    assert installation.read("SELECT id FROM t ORDER BY id") == [(3,)]


async def test_idle(installation: Installation) -> None:
    """An idle manager exits; the next request, and the next read, start another one."""
    installation.dispatcher(TEATREE_MANAGER_IDLE_EXIT_MS="300")
    await installation.send("create_model", table("id"), "create")
    for i in range(2):
        pid = installation.manager_pid()
        if pid is not None:
            await installation.until_ended(pid)
        assert (await installation.send("append", rows(i), f"a{i}"))["kind"] == "done"
    pid = installation.manager_pid()
    if pid is not None:
        await installation.until_ended(pid)
    assert await installation.ask("SELECT count(*) AS n FROM t") == [{"n": 2}]
    await installation.outcomes()


async def test_idle_while_an_archive_is_made(installation: Installation) -> None:
    """A manager that exits while an archive is being made publishes its outcome first."""
    plan = {"manager.archive.table.begin": {"action": "delay", "delay_ms": 800, "times": 100}}
    installation.dispatcher(plan, TEATREE_MANAGER_IDLE_EXIT_MS="300")
    await installation.send("create_model", table("id"), "create")
    await installation.send("append", rows(1), "a1")
    assert (await installation.send("archive", {}, "archive"))["kind"] == "done"
    await installation.outcomes()


async def test_an_archive_between_two_rare_ones(installation: Installation) -> None:
    """A requested archive does not wait for the next periodic one."""
    manager = await installation.created(table("id"), TEATREE_MANAGER_ARCHIVE_INTERVAL_MS="3600000")
    await installation.send("append", rows(1), "a1")
    await until(lambda: any(archived_versions(installation.chain)))
    await installation.send("append", rows(2), "a2")
    assert (await installation.send("archive", {}, "archive"))["kind"] == "done"
    await manager.kill()


async def test_a_read_right_after_the_model_was_created(installation: Installation) -> None:
    """Once `create_model` is done no read fails with `unknown_model`, also before the snapshot file exists."""
    plan = {"manager.local.file.begin": {"action": "delay", "delay_ms": 1_500}}
    await installation.created(table("id"), plan)
    subject = installation.bus.subjects.query(MODEL, "query")
    early = await installation.bus.request(subject, b'{"sql": "SELECT 1"}')
    found = json.loads(early.body)  # on a busy machine the file can be there by now
    assert "rows" in found or found["error"]["code"] == "unavailable"
    version = installation.chain.newest_version()
    body = json.dumps({"sql": "SELECT count(*) AS n FROM t", "min_version": version}).encode()
    reply = await installation.bus.request(subject, body)
    assert json.loads(reply.body)["rows"] == [{"n": 0}]


async def test_dispatcher_killed(installation: Installation) -> None:
    """A manager keeps running without its dispatcher; the next dispatcher finds it instead of starting another."""
    first = installation.dispatcher()
    await installation.send("create_model", table("id"), "create")
    pid = installation.manager_pid()
    await first.kill()
    assert (await installation.send("append", rows(1), "a1"))["kind"] == "done"
    second = installation.dispatcher()
    await second.until_printed("the dispatcher runs")
    assert (await installation.send("append", rows(2), "a2"))["kind"] == "done"
    assert installation.manager_pid() == pid
    assert f'"managers": {json.dumps(["sales"])}' in second.output()


async def test_two_dispatchers(installation: Installation) -> None:
    """Two dispatchers of one installation do no harm: one manager runs, and both reject requests identically."""
    installation.dispatcher()
    installation.dispatcher()
    await installation.send("append", rows(1), "early")
    await installation.send("create_model", table("id"), "create")
    for i in range(3):
        assert (await installation.send("append", rows(i), f"a{i}"))["kind"] == "done"
    outcomes = await installation.outcomes()
    assert outcomes["early"]["error"]["code"] == "unknown_model"
    assert len({m.epoch for m in installation.check_chain()}) == 1


@pytest.mark.parametrize("place", ["manager.ship.manifest.end", "manager.announce.begin"])
async def test_crash_before_the_last_outcome(installation: Installation, place: str) -> None:
    """After a crash before the last outcome was published, it is published without a further request."""
    installation.dispatcher({place: {"action": "crash", "hit": 3, "times": 1}})
    await installation.send("create_model", table("id"), "create")
    await installation.send("append", rows(1), "a1")
    assert (await installation.send("append", rows(2), "a2"))["kind"] == "done"
    await installation.outcomes()


async def test_refused_creations(installation: Installation) -> None:
    """Requests between rejected `create_model` requests get outcomes too, however soon the model is created then."""
    installation.dispatcher()
    publish = installation.publish
    await publish("append", rows(1), "before")
    for i in range(3):
        await publish("create_model", {"engine": "none"}, f"bad{i}")
        await publish("append", rows(i), f"between{i}")
    await publish("create_model", table("id"), "create")
    await publish("append", rows(2), "after")
    await installation.outcome("after")
    for request_id in installation.sent:
        await installation.outcome(request_id)
    outcomes = await installation.outcomes()
    assert {i for i, o in outcomes.items() if o["kind"] == "done"} == {"create", "after"}
    assert installation.read("SELECT id FROM t") == [(2,)]
