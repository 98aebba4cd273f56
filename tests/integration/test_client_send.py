"""Sending single requests: receipts, outcomes, and what happens when a reply is missed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from attrs import evolve

from fake_manager import FakeManager, until
from teatree import Session, connect
from teatree.client.sending import waiting
from teatree.contracts.errors import Code, RequestError, RetryError
from teatree.contracts.formats.requests import CONTENT_ARROW, Request
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


async def test_a_request_returns_when_it_is_done(session: Session, fake_manager: FakeManager) -> None:
    """The receipt holds id, place in the log, version and result."""
    receipt = await session.model("sales").append("sales", [{"id": 1}, {"id": 2}])
    assert receipt.is_done
    assert receipt.result == {"rows": 2}
    assert (receipt.seq, receipt.version) == (fake_manager.requests[0].seq, 1)
    assert receipt.request_id == fake_manager.requests[0].request_id


async def test_accepted_returns_before_the_outcome(session: Session, fake_manager: FakeManager) -> None:
    """`wait="accepted"` needs no manager; the outcome can be read later by the id."""
    fake_manager.silent = True
    model = session.model("sales")
    receipt = await model.send("append", {"table": "sales"}, rows=[{"id": 1}], wait="accepted")
    assert not receipt.is_done
    fake_manager.silent = False
    asking = asyncio.create_task(model.outcome(receipt.request_id))
    await model.send("append", {"table": "sales"}, rows=[{"id": 1}], request_id=receipt.request_id, wait="accepted")
    assert (await asking).seq is not None


async def test_every_way_of_sending_carries_the_sender(fake_manager: FakeManager) -> None:
    """One request, many at once, a query through the log: all are from the session's sender."""
    async with connect(settings=Settings(nats=fake_manager.settings), sender="anna") as session:
        model = session.model("sales")
        await model.append("sales", [{"id": 1}])
        await model.send_many([("append", {"table": "sales", "rows": []})] * 2)
        await model.send("append", {"table": "sales"}, group="g1", wait="accepted")
        await session.create_model("sales")
    await until(lambda: len(fake_manager.requests) == 5)
    assert {request.sender for request in fake_manager.requests} == {"anna"}


@pytest.mark.parametrize(("kind", "raised"), [("rejected", RequestError), ("failed", RetryError)])
async def test_another_outcome_raises_its_reason(
    session: Session, fake_manager: FakeManager, kind: str, raised: type[Exception]
) -> None:
    """`rejected` and `failed` raise different errors; code, message and place are the notice's."""
    error = {"code": "unknown_table" if kind == "rejected" else "disk_full", "message": "No.", "where": "table"}
    fake_manager.decide = lambda _: (kind, {"error": error})
    with pytest.raises(raised) as caught:
        await session.model("sales").append("nowhere", [{"id": 1}])
    assert caught.value.to_dict() == error  # type: ignore[attr-defined]


async def test_a_missed_notice_is_looked_up(
    session: Session, fake_manager: FakeManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The outcome is found in the stream if its live message never arrived."""
    monkeypatch.setattr(waiting, "LOOK_MS", 100)

    async def deaf(*_: Any) -> None:
        await asyncio.sleep(0.1)

    monkeypatch.setattr(waiting.OutcomeWaiter, "_next", deaf)
    receipt = await session.model("sales").append("sales", [{"id": 1}])
    assert receipt.version == 1


async def test_a_lost_outcome_is_published_again(
    session: Session, fake_manager: FakeManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a long time without an outcome the request is sent again under its id, and has one effect."""
    monkeypatch.setattr(waiting, "LOOK_MS", 50)
    monkeypatch.setattr(waiting, "RESEND_MS", 300)
    fake_manager.silent = True
    sending = asyncio.create_task(session.model("sales").append("sales", [{"id": 1}], request_id="one"))
    await until(lambda: bool(fake_manager.requests))
    fake_manager.silent = False
    assert (await sending).request_id == "one"
    assert len(fake_manager.requests) > 1
    assert list(fake_manager.applied) == ["one"]


async def test_a_time_out_reports_that_the_request_is_accepted(session: Session, fake_manager: FakeManager) -> None:
    """The error names the request and reports that it will still be applied."""
    fake_manager.silent = True
    with pytest.raises(RetryError, match=r"my-id.*will still be applied") as caught:
        await session.model("sales").append("sales", [{"id": 1}], request_id="my-id", timeout_ms=300)
    assert caught.value.code is Code.TIMED_OUT


async def test_notices_before_the_outcome_are_received(session: Session, fake_manager: FakeManager) -> None:
    """`on_notice` gets `progress` before the outcome."""
    received: list[str] = []
    fake_manager.silent = True
    sending = asyncio.create_task(
        session.model("sales").load("sales", "x.parquet", on_notice=lambda n: received.append(n.kind.value))
    )
    await until(lambda: bool(fake_manager.requests))
    fake_manager.silent = False
    await fake_manager.notify(fake_manager.requests[0], "progress")
    await fake_manager.notify(fake_manager.requests[0], "done")
    await sending
    assert received == ["progress", "done"]


@pytest.mark.parametrize("kind", ["table", "frame"])
async def test_arrow_rows_travel_as_a_stream(session: Session, fake_manager: FakeManager, kind: str) -> None:
    """A pyarrow table and a Polars frame become an Arrow body, the other arguments an ASCII header."""
    rows = {"id": [1, 2], "site": ["Zürich", None]}
    seen: list[Request] = []

    def decide(request: Request) -> tuple[str, dict[str, object]]:
        seen.append(request)
        return "done", {}

    fake_manager.decide = decide
    await session.model("sales").append("größe", pa.table(rows) if kind == "table" else pl.DataFrame(rows))
    assert seen[0].content_type == CONTENT_ARROW
    assert seen[0].args is not None
    assert seen[0].args.isascii()
    assert json.loads(seen[0].args) == {"table": "größe"}
    assert pa.ipc.open_stream(seen[0].body).read_all().to_pydict() == rows


async def test_a_body_over_the_limit_is_not_sent(session: Session, fake_manager: FakeManager) -> None:
    """The client refuses what NATS would not take, with advice what to do instead."""
    with pytest.raises(RequestError, match="load") as caught:
        await session.model("sales").append("sales", [{"text": "x" * session.bus.payload_bytes_max()}])
    assert caught.value.code is Code.BODY_TOO_LARGE
    await session.model("sales").append("sales", [{"id": 1}])
    assert len(fake_manager.requests) == 1


async def test_the_built_in_functions_send_their_arguments(session: Session, fake_manager: FakeManager) -> None:
    """Each convenience method is one request with the function's own arguments."""
    model = await session.create_model("sales", storage_version="v1.4.0", tables=[{"table": "t", "columns": []}])
    await model.create_table("t", {"id": "BIGINT"}, primary_key="id")
    await model.alter_table("t", add={"name": "x", "type": "INTEGER"})
    await model.upsert("t", [{"id": 1}], key=["id"])
    await model.replace("t", [{"id": 1}], expected_version=7)
    await model.update("t", {"x": 1}, {"id": 1})
    await model.delete("t", {"id": 1})
    await model.load("t", "s3://b/k.parquet", mode="create")
    await model.sql("DELETE FROM t WHERE id = ?", [1])
    await model.archive(["t"])
    await model.drop_table("t")
    await session.drop_model("sales")
    sent = [(r.function, json.loads(r.body)) for r in fake_manager.requests]
    assert sent == [
        ("create_model", {"storage_version": "v1.4.0", "tables": [{"table": "t", "columns": []}]}),
        ("create_table", {"table": "t", "columns": [{"name": "id", "type": "BIGINT"}], "primary_key": ["id"]}),
        ("alter_table", {"table": "t", "add": {"name": "x", "type": "INTEGER"}}),
        ("upsert", {"table": "t", "key": ["id"], "rows": [{"id": 1}]}),
        ("replace", {"table": "t", "expected_version": 7, "rows": [{"id": 1}]}),
        ("update", {"table": "t", "set": {"x": 1}, "where": {"id": 1}}),
        ("delete", {"table": "t", "where": {"id": 1}}),
        ("load", {"table": "t", "uri": "s3://b/k.parquet", "mode": "create"}),
        ("sql", {"statement": "DELETE FROM t WHERE id = ?", "parameters": [1]}),
        ("archive", {"tables": ["t"]}),
        ("drop_table", {"table": "t"}),
        ("drop_model", {}),
    ]


async def test_an_unreachable_nats_is_reported_at_once(nats_server: NatsSettings) -> None:
    """A session that cannot connect raises `unavailable`."""
    settings = Settings(nats=evolve(nats_server, url="nats://127.0.0.1:1"))
    with pytest.raises(RetryError) as caught:
        async with connect(settings=settings):
            pass
    assert caught.value.code is Code.UNAVAILABLE
