"""A listener in client and manager sees each step of an append, in order, with its duration."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from places import Recorder
from processes import MODEL, Installation, table, until
from teatree import connect
from teatree.functions.registry import built_in_functions
from teatree.storage.objects.stores import open_store
from teatree_manager.manager import Manager

MANAGER = [
    "manager.batch.begin",
    "manager.apply.begin",
    "manager.apply.request",
    "manager.apply.commit.begin",
    "manager.apply.commit.end",
    "manager.apply.end",
    "manager.capture.begin",
    "manager.capture.checkpoint.begin",
    "manager.capture.checkpoint.end",
    "manager.capture.pack.begin",
    "manager.capture.pack.end",
    "manager.capture.end",
    "manager.batch.end",
    "manager.ship.begin",
    "manager.ship.pack.begin",
    "manager.ship.pack.end",
    "manager.ship.segment.begin",
    "manager.ship.segment.end",
    "manager.ship.manifest.begin",
    "manager.ship.manifest.end",
    "manager.ship.end",
    "manager.announce.begin",
    "manager.announce.end",
]
"""What one append passes, beside what runs at the same time."""
CLIENT = [
    "client.send.begin",
    "client.publish.begin",
    "client.publish.end",
    "client.wait.begin",
    "client.wait.end",
    "client.send.end",
]
PARENTS = {
    "manager.apply": "manager.batch",
    "manager.apply.request": "manager.apply",
    "manager.apply.commit": "manager.apply",
    "manager.capture": "manager.batch",
    "manager.capture.checkpoint": "manager.capture",
    "manager.capture.pack": "manager.capture",
    "manager.ship.pack": "manager.ship",
    "manager.ship.segment": "manager.ship",
    "manager.ship.manifest": "manager.ship",
    "client.publish": "client.send",
    "client.wait": "client.send",
}
FOLLOWERS = {"local", "head", "archive", "catalog"}


@pytest.fixture
async def recorder(installation: Installation) -> AsyncIterator[Recorder]:
    """Run a manager in this process, and record its points after it has created the model."""
    recorder = Recorder()
    await installation.publish("create_model", table("id", "v"), "create")
    settings = installation.settings
    manager = Manager(MODEL, settings, open_store(settings.store), built_in_functions(), [recorder])
    running = asyncio.create_task(manager.run())
    await installation.outcome("create")
    await until(lambda: _followers(recorder) >= FOLLOWERS)
    yield recorder
    manager.stop()
    await running


def _followers(recorder: Recorder) -> set[str]:
    return {point.attributes["follower"] for point in recorder.points if point.name == "manager.follower"}


async def test_each_step_of_an_append_is_seen(installation: Installation, recorder: Recorder) -> None:
    """From the client through log, batch, commit, capture, upload and notice back to the client; then followers."""
    assert {"manager.acquire", "manager.connect", "manager.take_over"} <= {point.name for point in recorder.points}
    recorder.clear()
    async with connect(settings=installation.settings, listeners=[recorder]) as session:
        receipt = await session.model(MODEL).append("t", [{"id": 1, "v": 2}], request_id="one")
    await until(lambda: _followers(recorder) >= FOLLOWERS)
    assert [place for place in recorder.order if place in MANAGER] == MANAGER
    before = recorder.order[: recorder.order.index("manager.batch.begin")]
    assert [place for place in before if place.startswith("log.")][-3:] == [
        "log.read.end",
        "log.decode.begin",
        "log.decode.end",
    ]
    assert [place for place in recorder.order if place in CLIENT] == CLIENT
    for name, parent in PARENTS.items():
        assert recorder.one(name).parent is recorder.one(parent), name
    for place in (*MANAGER, *CLIENT):
        if place.endswith(".begin"):
            assert recorder.seconds(place.removesuffix(".begin")) >= 0
    assert recorder.one("manager.apply.request").attributes["request"].request_id == "one"
    assert recorder.one("manager.ship.manifest").attributes == {"model": MODEL, "version": receipt.version}
    batch = recorder.one("manager.batch").attributes
    assert (batch["version"], [request.request_id for request in batch["requests"]]) == (receipt.version, ["one"])
