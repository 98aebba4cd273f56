"""The log exchanged under a model: an error that an operator sees, never silence."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import attrs
import psycopg
import pytest

from processes import MODEL, Installation, ManagerServer, Running, rows, table
from teatree.contracts.settings import Settings
from teatree.embedded.nats import NatsServer
from teatree.messaging.streams import ensure_streams
from teatree.storage.migrations.migrate import migrate


async def begin(installation: Installation) -> Running:
    """Return a manager whose model has three requests."""
    manager = installation.manager()
    await installation.send("create_model", table("id"), "create")
    for i in (1, 2):
        assert (await installation.send("append", rows(i), f"a{i}"))["kind"] == "done"
    return manager


async def exchange(installation: Installation, requests: int) -> None:
    """Delete the log and create it again, with some requests in it."""
    await installation.bus.js(f"STREAM.DELETE.{installation.bus.subjects.requests_stream}")
    await ensure_streams(installation.bus, log_bytes_max=50_000_000, notices_age_s=3600, notices_max=10_000)
    installation.sent.clear()
    for i in range(requests):
        await installation.publish("append", rows(100 + i), f"new{i}")


def recorded_error(installation: Installation) -> dict[str, Any]:
    """Return why the model is stopped, as PostgreSQL tells."""
    settings = installation.settings.postgres
    with psycopg.connect(settings.url or "", password=settings.password) as connection:
        found = connection.execute("SELECT error FROM goal_model WHERE name = %s", (MODEL,)).fetchone()
    assert found is not None
    error: dict[str, Any] = found[0]
    return error


async def stops_with(installation: Installation, manager: Running, code: str) -> None:
    """Wait for a manager to stop for an operator, for a reason that everybody can see."""
    assert await manager.exit_code() == 78
    assert f"{code}: " in manager.said()
    assert "Traceback" not in manager.said()
    assert recorded_error(installation)["code"] == code


@pytest.mark.parametrize("requests", [0, 2, 6])
async def test_exchanged_under_a_manager(installation: Installation, requests: int) -> None:
    """The stream deleted and created again under a working manager, shorter or longer: it stops, applying nothing."""
    manager = await begin(installation)
    newest = installation.chain.newest_version()
    await exchange(installation, requests)
    await stops_with(installation, manager, "log_replaced")
    assert installation.chain.newest_version() == newest
    assert installation.read("SELECT id FROM t ORDER BY id") == [(1,), (2,)]


async def test_deleted_under_a_manager(installation: Installation) -> None:
    """The stream deleted and not created again: the manager says so and stops."""
    manager = await begin(installation)
    await installation.bus.js(f"STREAM.DELETE.{installation.bus.subjects.requests_stream}")
    await stops_with(installation, manager, "log_replaced")
    assert installation.bus.subjects.requests_stream in manager.said()


async def test_exchanged_while_at_rest(installation: Installation) -> None:
    """The stream created again while nobody looks after the model: each manager that starts stops, and says why."""
    manager = await begin(installation)
    assert await manager.leave() == 0
    await exchange(installation, 6)
    for _ in range(2):
        await stops_with(installation, installation.manager(), "log_replaced")
    assert installation.read("SELECT id FROM t ORDER BY id") == [(1,), (2,)]


async def test_dispatcher_with_an_exchanged_log(installation: Installation) -> None:
    """With a dispatcher too the model stops instead of its requests being lost or answered by mistake."""
    dispatcher = installation.dispatcher()
    await installation.send("create_model", table("id"), "create")
    assert (await installation.send("append", rows(1), "a1"))["kind"] == "done"
    await exchange(installation, 1)
    await dispatcher.says("a manager stopped for an operator")
    assert recorded_error(installation)["code"] == "log_replaced"
    assert "new0" not in await installation.notices()


async def test_purged_by_an_operator(installation: Installation) -> None:
    """Requests purged before they were applied, by somebody else than the dispatcher: the model stops."""
    manager = await begin(installation)
    assert await manager.leave() == 0
    last = [await installation.publish("append", rows(10 + i), f"lost{i}") for i in range(3)][-1]
    stream = installation.bus.subjects.requests_stream
    await installation.bus.js(f"STREAM.PURGE.{stream}", {"seq": last})
    await stops_with(installation, installation.manager(), "log_purged")
    assert installation.read("SELECT id FROM t ORDER BY id") == [(1,), (2,)]


@pytest.mark.parametrize(("since", "code"), [(0, "log_behind"), (1, "log_replaced"), (5, "log_replaced")])
async def test_put_back_from_an_older_copy(
    service_settings: Settings, manager_server: ManagerServer, tmp_path: Path, since: int, code: str
) -> None:
    """A log put back from an older copy, shorter than the model has read or grown again with others: it stops."""
    migrate(service_settings.postgres)
    with NatsServer(tmp_path / "nats") as nats:
        settings = attrs.evolve(service_settings, nats=nats.settings())
        installation = await Installation.make(settings, manager_server, tmp_path)
        try:
            manager = await begin(installation)
            nats.stop()
            shutil.copytree(tmp_path / "nats" / "jetstream", tmp_path / "copy")
            nats.start()
            await installation.reconnected()
            assert (await installation.send("append", rows(3), "a3"))["kind"] == "done"
            assert await manager.leave() == 0
            nats.stop()
            shutil.rmtree(tmp_path / "nats" / "jetstream")
            (tmp_path / "copy").rename(tmp_path / "nats" / "jetstream")
            nats.start()
            await installation.reconnected()
            for i in range(since):
                await installation.publish("append", rows(100 + i), f"other{i}")
            await stops_with(installation, installation.manager(), code)
            assert installation.read("SELECT id FROM t ORDER BY id") == [(1,), (2,), (3,)]
        finally:
            await installation.close()
