"""`send_many`: requests are accepted in batches and accounted for one by one."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from fake_manager import FakeManager, until
from servers import TestServers
from teatree import Session, connect
from teatree.client.sending.group import GroupTracker
from teatree.client.sending.message import Message
from teatree.contracts.errors import Code, RequestError, RetryError
from teatree.contracts.formats.requests import Request
from teatree.contracts.settings import NatsSettings, Settings, StoreSettings
from teatree.messaging.batches import BatchAck, BatchPublisher, LogMessage
from teatree.storage.objects.stores import open_store


@pytest.fixture
async def fake_manager(nats_server: NatsSettings) -> AsyncIterator[FakeManager]:
    """Return a fake manager that applies the model's requests."""
    async with FakeManager(nats_server, "sales") as fake_manager:
        yield fake_manager


@pytest.fixture
async def session(fake_manager: FakeManager, file_store: StoreSettings) -> AsyncIterator[Session]:
    """Return an open session."""
    async with connect(settings=Settings(nats=fake_manager.settings, store=file_store)) as session:
        yield session


def appends(count: int) -> list[tuple[str, dict[str, Any]]]:
    """Return requests that append one row each."""
    return [("append", {"table": "sales", "rows": [{"id": n}]}) for n in range(count)]


async def test_all_are_accounted_for_in_their_order(session: Session, fake_manager: FakeManager) -> None:
    """`wait="done"` returns when every request has its outcome; the log keeps the sender's order."""
    seen: list[tuple[int, int]] = []
    summary = await session.model("sales").send_many(
        appends(2_500), wait="done", progress=lambda accepted, known: seen.append((accepted, known))
    )
    assert (summary.sent, summary.applied, summary.refused) == (2_500, 2_500, 0)
    assert summary.version == fake_manager.version
    assert summary.accepted_seq == fake_manager.requests[-1].seq
    ids = [json.loads(r.body)["rows"][0]["id"] for r in fake_manager.requests]
    assert ids == list(range(2_500))
    assert seen[-1] == (2_500, 2_500)


async def test_accepted_waits_for_no_outcome(session: Session, fake_manager: FakeManager) -> None:
    """By default the call returns when all requests are on disk; it takes an async iterable too."""
    fake_manager.silent = True

    async def items() -> AsyncIterator[Message]:
        for n in range(10):
            yield Message("append", {"table": "sales"}, rows=[{"id": n}], request_id=f"id-{n}")

    summary = await session.model("sales").send_many(items(), group="my-group", batch=3)
    assert (summary.sent, summary.waited, summary.groups) == (10, False, ("my-group",))
    await until(lambda: len(fake_manager.requests) >= 10)
    assert {r.group for r in fake_manager.requests} == {"my-group"}
    assert [r.request_id for r in fake_manager.requests] == [f"id-{n}" for n in range(10)]


async def test_refused_ones_are_named_with_their_reasons(session: Session, fake_manager: FakeManager) -> None:
    """A refused request affects no other, and its reason reaches the sender."""

    def decide(request: Request) -> tuple[str, dict[str, Any]]:
        if request.request_id in {"bad-3", "bad-7"}:
            return "rejected", {"error": {"code": "not_null", "message": "It is null.", "where": "rows[0].id"}}
        return "done", {}

    fake_manager.decide = decide
    items = [Message("append", {"table": "t"}, rows=[{}], request_id=f"bad-{n}") for n in range(10)]
    summary = await session.model("sales").send_many(items, wait="done")
    assert (summary.applied, summary.refused) == (8, 2)
    assert {r.request_id: r.error["code"] for r in summary.refusals} == {"bad-3": "not_null", "bad-7": "not_null"}


async def test_the_same_ids_again_are_already_applied(session: Session, fake_manager: FakeManager) -> None:
    """A sender that starts again with the same ids changes nothing."""
    items = [Message("append", {"table": "t"}, rows=[{"id": n}], request_id=f"i{n}") for n in range(50)]
    await session.model("sales").send_many(items, wait="done")
    again = await session.model("sales").send_many(items, wait="done")
    assert (again.applied, again.already) == (0, 50)


async def test_one_too_large_stops_the_sending_with_an_error(session: Session, fake_manager: FakeManager) -> None:
    """The error has the code `body_too_large`."""
    items = [*appends(3), ("append", {"table": "t", "rows": [{"x": "y" * session.bus.payload_bytes_max()}]})]
    with pytest.raises(RequestError) as caught:
        await session.model("sales").send_many(items, batch=1)
    assert caught.value.code is Code.BODY_TOO_LARGE


async def test_a_time_out_counts_the_missing_outcomes(session: Session, fake_manager: FakeManager) -> None:
    """When no outcome comes for too long, the error counts the requests that are still to be applied."""
    fake_manager.silent = True
    with pytest.raises(RetryError, match="5 of 5 requests are still to be applied"):
        await session.model("sales").send_many(appends(5), wait="done", timeout_ms=300)


NOT_NULL = {"error": {"code": "not_null", "message": "It is null.", "where": "rows[0].id"}}


def lose_receipt(
    monkeypatch: pytest.MonkeyPatch, fake_manager: FakeManager, number: int, then: Callable[[], None] = lambda: None
) -> None:
    """Lose the receipt of one of the next batches, whose requests are accepted and applied all the same."""

    class _LosingPublisher(BatchPublisher):
        batches = 0

        async def put(self, messages: Sequence[LogMessage]) -> asyncio.Task[BatchAck]:
            _LosingPublisher.batches += 1
            task = await super().put(messages)
            return asyncio.create_task(answered_and_lost(task)) if _LosingPublisher.batches == number else task

    async def answered_and_lost(task: asyncio.Task[BatchAck]) -> BatchAck:
        seq = (await task).last_seq
        await until(lambda: bool(fake_manager.requests) and fake_manager.requests[-1].seq >= seq)
        then()
        raise RetryError(Code.TIMED_OUT, "The receipt was lost.")

    monkeypatch.setattr("teatree.client.sending.bulk.BatchPublisher", _LosingPublisher)


@pytest.mark.parametrize("by_reference", [False, True], ids=["inline", "by_reference"])
@pytest.mark.parametrize("lost", [1, 2, 3])
async def test_a_lost_receipt_of_a_batch_that_was_accepted(
    session: Session,
    fake_manager: FakeManager,
    file_store: StoreSettings,
    monkeypatch: pytest.MonkeyPatch,
    lost: int,
    by_reference: bool,  # noqa: FBT001
) -> None:
    """When both copies of a batch are in the log, each of its requests is counted once, as its first copy was."""

    def decide(request: Request) -> tuple[str, dict[str, Any]]:
        return ("rejected", NOT_NULL) if int(request.request_id.removeprefix("i")) % 5 == 0 else ("done", {})

    fake_manager.decide = decide
    fake_manager.store = open_store(file_store) if by_reference else None
    items = [Message("append", {"table": "t"}, rows=[{}], request_id=f"i{n}") for n in range(100)]
    await session.model("sales").send_many(items[:7], wait="done")
    lose_receipt(monkeypatch, fake_manager, lost)
    summary = await session.model("sales").send_many(items, group="g", batch=25, wait="done")
    assert summary.groups == ("g", "g-2")
    assert (summary.sent, summary.applied, summary.already, summary.refused) == (100, 75, 5, 20)
    assert sorted(r.request_id for r in summary.refusals) == sorted(f"i{n}" for n in range(0, 100, 5))
    assert summary.accepted_seq == fake_manager.requests[-1].seq
    assert len(fake_manager.requests) > 107


async def test_a_lost_receipt_and_a_model_that_was_dropped(
    session: Session, fake_manager: FakeManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the second copies are refused, since the model was dropped, they count as refused; no count is negative."""

    def drop() -> None:
        fake_manager.applied.clear()
        fake_manager.decide = lambda _: (
            "rejected",
            {"error": {"code": "unknown_model", "message": "Gone.", "where": ""}},
        )

    lose_receipt(monkeypatch, fake_manager, 2, then=drop)
    summary = await session.model("sales").send_many(appends(30), batch=10, wait="done")
    assert (summary.sent, summary.applied, summary.already, summary.refused) == (30, 10, 0, 20)
    assert len(summary.refusals) == 20


async def test_a_lost_receipt_and_a_model_that_was_created(
    session: Session, fake_manager: FakeManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the first copies were refused, since no model existed yet, and the second applied, all count as applied."""

    def create() -> None:
        fake_manager.applied.clear()
        fake_manager.decide = lambda _: ("done", {})

    fake_manager.decide = lambda _: ("rejected", NOT_NULL)
    lose_receipt(monkeypatch, fake_manager, 1, then=create)
    summary = await session.model("sales").send_many(appends(10), wait="done")
    assert (summary.sent, summary.applied, summary.already, summary.refused) == (10, 10, 0, 0)
    assert summary.refusals == ()


async def test_nats_unavailable_when_the_second_group_begins(
    session: Session, fake_manager: FakeManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time-out also covers a NATS that is unavailable just when the lost batches are to be sent again."""
    lose_receipt(monkeypatch, fake_manager, 1)
    start = GroupTracker.start
    refused: list[str] = []

    async def late_start(tracker: GroupTracker) -> None:
        if tracker.group.endswith("-2") and len(refused) < 2:
            refused.append(tracker.group)
            raise RetryError(Code.UNAVAILABLE, "NATS does not answer.")
        await start(tracker)

    monkeypatch.setattr(GroupTracker, "start", late_start)
    summary = await session.model("sales").send_many(appends(30), group="g", batch=10, wait="done")
    assert refused == ["g-2", "g-2"]
    assert (summary.groups, summary.sent, summary.applied) == (("g", "g-2"), 30, 30)


async def test_a_server_that_dies_half_way_loses_and_doubles_nothing(
    session: Session, fake_manager: FakeManager, servers: TestServers
) -> None:
    """Batches whose receipt was lost are sent again under the same ids: every request has one effect and is counted."""
    count = 20_000
    sending = asyncio.create_task(session.model("sales").send_many(appends(count), wait="done", timeout_ms=60_000))
    await until(lambda: len(fake_manager.requests) >= 2_000)
    await asyncio.to_thread(restart, servers)
    summary = await sending
    assert summary.sent == count
    assert len(fake_manager.applied) == count
    assert (summary.applied, summary.already) == (count, 0)


def restart(servers: TestServers) -> None:
    """Kill NATS and start it again."""
    pid = servers.nats().pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    while servers.nats().pid in (pid, None):
        servers.nats()
