"""`follow`, and the synchronous client."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from fake_manager import FakeManager
from servers import TestServers
from teatree import Session, connect, connect_sync
from teatree.client.notice import Notice
from teatree.contracts.errors import RequestError
from teatree.contracts.settings import NatsSettings, Settings


@pytest.fixture
async def fake_manager(nats_server: NatsSettings) -> AsyncIterator[FakeManager]:
    """Return a fake manager that applies the model's requests."""
    async with FakeManager(nats_server, "sales") as fake_manager:
        yield fake_manager


@pytest.fixture
async def session(fake_manager: FakeManager) -> AsyncIterator[Session]:
    """Return an open session."""
    async with connect(settings=Settings(nats=fake_manager.settings)) as session:
        yield session


async def take(session: Session, count: int, after: int | None) -> list[Notice]:
    """Return the first notices of `follow`."""
    found: list[Notice] = []
    async with aclosing(session.model("sales").follow(after=after)) as notices:
        async for notice in notices:
            found.append(notice)
            if len(found) == count:
                break
    return found


async def test_outcomes_and_versions_come_in_order(session: Session) -> None:
    """`follow` yields each outcome and then the version that holds it."""
    following = asyncio.create_task(take(session, 4, None))
    await asyncio.sleep(0.2)
    first = await session.model("sales").append("t", [{"id": 1}])
    second = await session.model("sales").append("t", [{"id": 2}])
    received = [(n.kind.value, n.request_id, n.version) for n in await following]
    assert received == [
        ("done", first.request_id, 1),
        ("version", None, 1),
        ("done", second.request_id, 2),
        ("version", None, 2),
    ]


async def test_the_past_can_be_replayed(session: Session) -> None:
    """From position 0 `follow` yields all that the stream still holds."""
    for n in range(3):
        await session.model("sales").append("t", [{"id": n}])
    assert [n.version for n in await take(session, 6, 0)] == [1, 1, 2, 2, 3, 3]


async def test_nothing_is_missed_over_a_restart_of_the_server(session: Session, servers: TestServers) -> None:
    """When the connection was cut `follow` still yields everything, once and in order."""
    model = session.model("sales")
    following = asyncio.create_task(take(session, 20, 0))
    for n in range(5):
        await model.append("t", [{"id": n}])
    pid = servers.nats().pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    while await asyncio.to_thread(lambda: servers.nats().pid) in (pid, None):
        pass
    for n in range(5):
        await model.append("t", [{"id": n}])
    versions = [n.version for n in await following if n.kind == "version"]
    assert versions == list(range(1, 11))


async def test_the_synchronous_client_works_inside_a_running_loop(fake_manager: FakeManager) -> None:
    """As in Jupyter: the same methods, in another thread's loop, with the same errors."""

    def notebook() -> tuple[int | None, int, list[str]]:
        with connect_sync(settings=Settings(nats=fake_manager.settings)) as session:
            model = session.create_model("sales")
            receipt = model.append("t", [{"id": 1}])
            summary = model.send_many([("append", {"table": "t", "rows": [{"id": 2}]})] * 3, wait="done")
            follow = model.follow(after=0)
            kinds = [next(follow).kind.value for _ in range(3)]
            follow.close()
            with pytest.raises(RequestError):
                session.model("No Name")
            return receipt.version, summary.applied, kinds

    version, applied, kinds = await asyncio.to_thread(notebook)
    assert version == 2
    assert applied == 3
    assert kinds == ["done", "version", "done"]
    # ... and called in the very thread of a running loop, whose own tasks wait meanwhile: it must not need them.
    with connect_sync(settings=Settings(nats=fake_manager.settings)) as session:
        assert session.model("sales").send("append", {}, wait="accepted").seq > 0
    assert "append" in str(type(session).create_model.__doc__) or session.model("sales").append.__doc__
