"""Names that NATS accepts in a subject and that we do not: they disturb no other model."""

from __future__ import annotations

import pytest
from attrs import evolve

from dispatcher_world import SETTINGS, World, in_log, until
from processes import until_async
from teatree.contracts.formats.manifest import ModelState
from teatree.messaging.log import WakeHints
from teatree.messaging.streams import log_state
from teatree.messaging.subjects import ADVANCED

NAMES = ["x" * 1200, "b\u00a0d", "b\x01d", "b\x7fd"]


async def publish(world: World, name: str) -> None:
    """Publish a request as a client that checks nothing."""
    body = b"{}"
    prefix = world.bus.prefix
    frame = f"PUB {prefix}.request.{name}.append {len(body)}\r\n".encode() + body + b"\r\n"
    await world.bus.send((frame,))


async def in_stream(world: World, messages: int) -> None:
    """Wait until the log has so many messages."""

    async def there() -> bool:
        return (await log_state(world.bus)).messages >= messages

    await until_async(there)


@pytest.mark.parametrize("name", NAMES, ids=ascii)
async def test_the_log_is_read_and_purged_beside_such_a_name(
    world: World, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other models are found by every way of reading, and the purge takes their requests."""
    world.launcher.alive.add("sales")
    await world.send("sales", "create_model", "c")
    for i in range(5):
        await world.send("sales", "append", f"r{i}")
    await publish(world, name)
    await in_stream(world, 7)
    last = await world.send("sales", "append", "z")
    assert await in_log(world.bus) == {"sales": last}
    monkeypatch.setattr("teatree.messaging.last_requests.SUBJECTS_MAX", 0)
    assert await in_log(world.bus) == {"sales": last}
    world.publish("sales", last, ModelState.ACTIVE)
    world.start(world.make(world.launcher, evolve(SETTINGS, retention_days=1e-6)))
    await world.shrunk(2)


@pytest.mark.parametrize("name", NAMES, ids=ascii)
async def test_such_a_name_delays_no_hint(world: World, name: str) -> None:
    """A model is launched by its hint although others of the same round are of such names."""
    world.start(world.make(world.launcher, evolve(SETTINGS, poll_ms=600_000)))
    await world.rounds(1)
    for _ in range(20):
        await publish(world, name)
    await world.send("good", "create_model", "c")
    await until(lambda: "good" in world.launcher.launched)


async def test_only_a_mark_of_log_advance_is_a_hint_of_one(world: World) -> None:
    """A request to the reserved name, which any sender can publish, does not restart what has stopped."""
    hints = await WakeHints.open(world.bus)
    await publish(world, ADVANCED)
    await world.send("good", "append", "a")
    await until(hints.event.is_set)
    await in_stream(world, 2)
    seen = hints.take()[0]
    await world.bus.publish_log(world.bus.subjects.advanced("sales"), b"{}")
    await until(hints.event.is_set)
    assert (seen | {"good"}, hints.take()[0] - {"good"}) == ({"good"}, {ADVANCED})
    await hints.close()
