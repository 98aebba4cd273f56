"""Notices longer than the server accepts: what is too long is in the store, and no notice ends a manager."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from processes import MODEL, Installation, ManagerServer, rows, table
from teatree.client.session import connect
from teatree.contracts.formats.notices import Kind
from teatree.contracts.settings import Settings, StoreSettings
from teatree.embedded import nats
from teatree.embedded.nats import NatsServer
from teatree.messaging.notices import read_notices

KB = 1_024
REFUSED = 1_500
TABLES = [f"t{number:03d}_{'x' * 58}" for number in range(490)]
"""Their names alone are longer than the largest message of the smaller server."""
LONG = "SELECT range AS id, repeat('x', 1000) AS v FROM range(640)"
"""A page of 640 kB."""


@pytest.fixture
def server(tmp_path: Path) -> NatsServer:
    """Return a separate NATS server that is not started yet."""
    return NatsServer(tmp_path / "nats")


@pytest.fixture(params=[pytest.param(256 * KB, marks=pytest.mark.slow), 64 * KB])
async def small(
    request: pytest.FixtureRequest,
    server: NatsServer,
    file_store: StoreSettings,
    manager_server: ManagerServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Installation]:
    """Return an installation whose NATS server accepts small messages only."""
    monkeypatch.setattr(nats, "MAX_PAYLOAD_BYTES", request.param)
    made = await begin(server, file_store, manager_server, tmp_path)
    yield made
    await made.close()
    server.stop()


async def begin(server: NatsServer, store: StoreSettings, managers: ManagerServer, folder: Path) -> Installation:
    """Return an installation on a server that is started with the limit of this moment."""
    server.start()
    settings = Settings(nats=server.settings(), store=store, data=folder / "data")
    return await Installation.make(settings, managers, folder)


async def test_notices_longer_than_the_server_accepts(small: Installation) -> None:
    """Pages, refusals of a group and versions reach their subscribers whole, whatever the server accepts."""
    columns = [{"name": "a", "type": "INT"}]
    manager = await small.created({"tables": [{"table": name, "columns": columns} for name in TABLES]})
    async with connect(settings=small.settings) as session:
        model = session.model(MODEL)
        dataset = await model.query(LONG, through_log=True, format="json")
        assert dataset.to_arrow().num_rows == 640
        wrong = [("append", {"table": TABLES[0], "rows": [{"a": "x" * 200}]})] * REFUSED
        summary = await model.send_many(wrong, wait="done")
        assert (summary.refused, len(summary.refusals)) == (REFUSED, REFUSED)
        async for notice in model.follow(after=0):
            if notice.kind is Kind.VERSION:
                assert set(notice.result["rows"]) == set(TABLES)
                break
    assert manager.code is None


async def test_a_limit_that_is_lowered(
    server: NatsServer,
    file_store: StoreSettings,
    manager_server: ManagerServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """When a restarted server accepts less, its manager keeps publishing, also what it publishes again."""
    made = await begin(server, file_store, manager_server, tmp_path)
    manager = await made.created(table("id"))
    query = {"sql": LONG, "page_size": 1_000}
    try:
        await made.send("query", query, "before")
        server.stop()
        monkeypatch.setattr(nats, "MAX_PAYLOAD_BYTES", 64 * KB)
        server.start()
        await made.reconnected()
        assert (await made.send("append", rows(1), "a1"))["kind"] == "done"
        assert (await made.send("query", query, "after"))["kind"] == "done"
        pages = await read_notices(made.bus, made.bus.subjects.notify(MODEL, "after", "page"))
        assert [bool(json.loads(page.body)["ref"]) for page in pages] == [True]
        assert manager.code is None
    finally:
        await made.close()
        server.stop()
