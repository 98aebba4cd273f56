"""`query`: direct reads and queries through the log, with results of several pages."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import pyarrow as pa
import pytest

from fake_manager import FakeManager, until
from teatree import Session, connect
from teatree.client import direct_read
from teatree.contracts.errors import Code, OperatorError, RequestError, RetryError
from teatree.contracts.formats.requests import CONTENT_ARROW, Request
from teatree.contracts.settings import NatsSettings, Settings, StoreSettings
from teatree.messaging.message import ReceivedMessage
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


def arrow(**columns: list[Any]) -> bytes:
    """Return an Arrow stream."""
    table = pa.table(columns)
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def json_page(page: int, pages: int, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a page of rows as a notice or a reply carries it."""
    columns = [{"name": "id", "type": "BIGINT"}, {"name": "amount", "type": "DECIMAL(18,2)"}]
    return {"page": page, "pages": pages, "columns": columns, "rows": rows}


async def test_a_result_has_all_its_pages(session: Session, fake_manager: FakeManager) -> None:
    """The first page is the body, the others are in the object store."""
    open_store(session.settings.store).put("models/x/pages/2", arrow(id=[3]))

    async def answer(message: ReceivedMessage) -> tuple[bytes, dict[str, str]]:
        args = json.loads(message.body)
        assert (args["sql"], args["parameters"], args["min_version"]) == ("SELECT ?", [7], 4)
        refs = json.dumps([{"page": 2, "ref": "models/x/pages/2", "rows": 1}])
        headers = {"Teatree-Version": "4", "Teatree-Pages": "2", "Teatree-Rows": "3", "Teatree-Refs": refs}
        return arrow(id=[1, 2]), {**headers, "Content-Type": CONTENT_ARROW}

    await fake_manager.answer(answer)
    found = await session.model("sales").query("SELECT ?", [7], min_version=4)
    assert pa.table(found).to_pydict() == {"id": [1, 2, 3]}


async def test_a_session_reads_its_own_writes(session: Session, fake_manager: FakeManager) -> None:
    """After an outcome, reads of the same session ask for at least its version."""
    asked: list[int | None] = []

    async def answer(message: ReceivedMessage) -> tuple[bytes, dict[str, str]]:
        asked.append(json.loads(message.body).get("min_version"))
        return arrow(id=[1]), {"Teatree-Version": "1", "Content-Type": CONTENT_ARROW}

    await fake_manager.answer(answer)
    model = session.model("sales")
    await model.query("SELECT 1")
    receipt = await model.append("sales", [{"id": 1}])
    await model.query("SELECT 1")
    assert asked == [None, receipt.version]


async def test_json_rows_come_back_in_their_types(session: Session, fake_manager: FakeManager) -> None:
    """A JSON page's columns name the types: nothing is lost on the way."""

    async def answer(_: ReceivedMessage) -> tuple[bytes, dict[str, str]]:
        page = json_page(1, 1, [{"id": 9007199254740993, "amount": "1234567890123456.78"}])
        return json.dumps({"version": 4, **page, "row_count": 1}).encode(), {"Teatree-Version": "4"}

    await fake_manager.answer(answer)
    found = await session.model("sales").query("SELECT 1", format="json")
    rows = pa.table(found).to_pylist()
    assert rows[0]["id"] == 9007199254740993
    assert str(rows[0]["amount"]) == "1234567890123456.78"


@pytest.mark.parametrize(
    ("code", "raised"), [("bad_sql", RequestError), ("busy", RetryError), ("corrupt", OperatorError)]
)
async def test_an_error_is_raised_as_the_class_of_its_code(
    session: Session, fake_manager: FakeManager, code: str, raised: type[Exception]
) -> None:
    """The error reply of NATS' service convention carries Teatree's code, which determines the exception."""

    async def answer(_: ReceivedMessage) -> tuple[bytes, dict[str, str]]:
        error = {"error": {"code": code, "message": "No.", "where": "sql"}}
        return json.dumps(error).encode(), {"Nats-Service-Error-Code": "400", "Nats-Service-Error": "No."}

    await fake_manager.answer(answer)
    with pytest.raises(raised, match=r"No\."):
        await session.model("sales").query("SELEC")


async def test_a_read_of_a_stopped_model_is_repeated_until_a_manager_runs(
    session: Session, fake_manager: FakeManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At first there is no responder, then the dispatcher that only starts a manager, then the manager."""
    monkeypatch.setattr(direct_read, "REPEAT_MS", 100)
    asking = asyncio.create_task(session.model("sales").query("SELECT 1", timeout_ms=20_000))
    received: list[ReceivedMessage] = []

    async def wake(message: ReceivedMessage) -> None:
        received.append(message)

    async def answer(_: ReceivedMessage) -> tuple[bytes, dict[str, str]]:
        return arrow(id=[1]), {"Teatree-Version": "1", "Content-Type": CONTENT_ARROW}

    await asyncio.sleep(0.2)
    await fake_manager.answer(wake, fake_manager.bus.subjects.queries_all)
    await until(lambda: bool(received))
    await fake_manager.answer(answer)
    assert pa.table(await asking).num_rows == 1
    assert len({m.headers["Teatree-Request-Id"] for m in received}) == 1
    assert len({m.reply for m in received}) == 1


async def test_no_responder_is_a_time_out(session: Session) -> None:
    """A read of a model without a manager fails after the time given."""
    with pytest.raises(RetryError) as caught:
        await session.model("sales").query("SELECT 1", timeout_ms=300)
    assert caught.value.code is Code.TIMED_OUT


@pytest.mark.parametrize("ends", ["by its time", "by its caller"])
async def test_a_read_that_is_given_up_is_cancelled(session: Session, fake_manager: FakeManager, ends: str) -> None:
    """A `cancel` is published, with the id and the reply subject of the read."""
    seen: list[ReceivedMessage] = []

    async def silent(message: ReceivedMessage) -> None:
        seen.append(message)

    await fake_manager.answer(silent)
    limit_ms = 300 if ends == "by its time" else 60_000
    asking = asyncio.create_task(session.model("sales").query("SELECT 1", timeout_ms=limit_ms))
    await until(lambda: bool(seen))
    if ends == "by its caller":
        asking.cancel()
    with pytest.raises((RetryError, asyncio.CancelledError)):
        await asking
    await until(lambda: len(seen) == 2)
    read, cancel = seen
    assert cancel.subject == fake_manager.bus.subjects.query("sales", "cancel")
    assert cancel.headers["Teatree-Request-Id"] == read.headers["Teatree-Request-Id"]
    assert cancel.reply == read.reply
    assert int(read.headers["Teatree-Repeat-Ms"]) == direct_read.REPEAT_MS <= 1_000  # a new manager gets it soon


@pytest.mark.parametrize("form", ["json", "arrow"])
async def test_through_the_log_pages_come_as_notices(session: Session, fake_manager: FakeManager, form: str) -> None:
    """Pages are notices before `done`, a long one by reference; the result has all of them in order."""
    store = open_store(session.settings.store)
    last = json.dumps(json_page(3, 3, [{"id": 3, "amount": 1}])).encode() if form == "json" else arrow(id=[3])
    store.put("models/x/pages/3", last)
    fake_manager.silent = True
    asking = asyncio.create_task(session.model("sales").query("SELECT 1", format=form, through_log=True))  # type: ignore[arg-type]
    await until(lambda: bool(fake_manager.requests))
    fake_manager.silent = False
    await publish_pages(fake_manager, fake_manager.requests[0], form)
    await fake_manager.notify(fake_manager.requests[0], "done", result={"rows": 3, "pages": 3})
    assert pa.table(await asking).column("id").to_pylist() == [1, 2, 3]


async def publish_pages(fake_manager: FakeManager, request: Request, form: str) -> None:
    """Publish two pages, and the reference to a third, in an order that happens after a crash."""
    await fake_manager.notify(request, "page", page=3, pages=3, ref="models/x/pages/3")
    for number in (2, 1):
        if form == "json":
            await fake_manager.notify(request, "page", **json_page(number, 3, [{"id": number, "amount": "1.50"}]))
            continue
        headers = {"Content-Type": CONTENT_ARROW, "Teatree-Page": str(number), "Teatree-Pages": "3"}
        subject = fake_manager.bus.subjects.notify(fake_manager.model, request.request_id, "page")
        await fake_manager.writer.publish([(subject, arrow(id=[number]), headers)])
