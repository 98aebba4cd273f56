"""Odd uses of the synchronous client: each ends in a clear error, none hangs."""

from __future__ import annotations

import asyncio
import os
import threading
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from fake_manager import FakeManager
from teatree import connect, connect_sync
from teatree.client.sync import SyncSession
from teatree.contracts.errors import Code, RequestError, RetryError, TeatreeError
from teatree.contracts.settings import NatsSettings, Settings


@pytest.fixture
def sync_session(nats_server: NatsSettings) -> Iterator[SyncSession]:
    """Return a session for code without `await`, of which no coroutine is left over."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with connect_sync(settings=Settings(nats=nats_server)) as session:
            yield session


@pytest.fixture
async def fake_manager(nats_server: NatsSettings) -> AsyncIterator[FakeManager]:
    """Return a fake manager that applies the model's requests."""
    async with FakeManager(nats_server, "sales") as fake_manager:
        yield fake_manager


def refused(call: Callable[[], Any]) -> str:
    """Return the message of a call's `usage` error."""
    with pytest.raises(RequestError) as caught:
        call()
    assert caught.value.code is Code.USAGE
    return str(caught.value)


def test_a_closed_session_refuses_calls(sync_session: SyncSession) -> None:
    """Closing twice is fine; every later call is a clear error, and so is an iteration that had begun."""
    model = sync_session.model("sales")
    following = model.follow(after=0)
    sync_session.close()
    sync_session.close()
    assert "closed" in refused(sync_session.models)
    assert "closed" in refused(lambda: model.append("t", [{"id": 1}]))
    assert "closed" in refused(lambda: next(following))
    following.close()
    with sync_session:
        pass  # a third time


def test_a_call_that_runs_when_the_session_is_closed_ends(sync_session: SyncSession) -> None:
    """A thread that waits in a call is released with a clear error."""
    errors: list[TeatreeError] = []
    model = sync_session.model("sales")
    started = threading.Event()

    def wait() -> None:
        started.set()
        try:
            model.outcome("never", timeout_ms=60_000)
        except TeatreeError as e:
            errors.append(e)

    waiting = threading.Thread(target=wait)
    waiting.start()
    started.wait()
    sync_session.close()
    waiting.join(30)
    assert [e.code for e in errors] == [Code.USAGE]


def test_a_session_is_not_used_inside_its_own_call(sync_session: SyncSession) -> None:
    """A generator that `send_many` reads cannot use the same session: the call would wait for itself."""
    model = sync_session.model("sales")

    def items() -> Iterator[tuple[str, dict[str, Any]]]:
        model.append("t", [{"id": 1}])
        yield "append", {}

    assert "inside one of its calls" in refused(lambda: model.send_many(items()))

    def closing() -> Iterator[tuple[str, dict[str, Any]]]:
        sync_session.close()
        yield "append", {}

    assert "inside one of its calls" in refused(lambda: model.send_many(closing()))


def test_a_session_belongs_to_its_process(sync_session: SyncSession) -> None:
    """After a fork, calls in the child are refused and closing leaves the parent's session as it was."""
    read, write = os.pipe()
    following = sync_session.model("sales").follow(after=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of forking a process that has threads
        child = os.fork()
    if child == 0:
        text = "nothing was raised"
        try:
            sync_session.model("sales").send("append", {}, wait="accepted")
        except BaseException as e:  # noqa: BLE001  whatever it is, the parent shows it
            text = str(e)
        following.close()
        sync_session.close()
        os.write(write, text.encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert "another process" in os.read(read, 1000).decode()
    os.close(read)
    os.close(write)


async def test_threads_share_a_session(fake_manager: FakeManager) -> None:
    """Calls from several threads run side by side, each with its own outcome."""
    with connect_sync(settings=Settings(nats=fake_manager.settings)) as session:
        model = await asyncio.to_thread(session.create_model, "sales")

        def append(n: int) -> int | None:
            return model.append("t", [{"id": n}]).version

        versions = await asyncio.gather(*(asyncio.to_thread(append, n) for n in range(8)))
        assert all(versions)
        await asyncio.to_thread(session.close)


async def test_an_async_session_belongs_to_its_event_loop(nats_server: NatsSettings) -> None:
    """A session that is used in another loop is refused with Teatree's error, not with asyncio's."""
    async with connect(settings=Settings(nats=nats_server)) as session:
        model = session.model("sales")
        with pytest.raises(RequestError, match="another event loop"):
            await asyncio.to_thread(lambda: asyncio.run(model.append("t", [{"id": 1}])))


async def test_an_outcome_of_an_unknown_id_is_not_called_accepted(nats_server: NatsSettings) -> None:
    """Reading the outcome of a request that was never sent fails, without a claim that it was accepted."""
    async with connect(settings=Settings(nats=nats_server)) as session:
        with pytest.raises(RetryError, match="there is no sign that it was ever sent") as caught:
            await session.model("sales").outcome("never-sent", timeout_ms=50)
    assert "accepted" not in str(caught.value)
