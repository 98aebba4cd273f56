"""PostgreSQL, the object store or NATS unavailable: nothing is lost, and all catches up afterwards."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import attrs
import pytest

from processes import Installation, ManagerServer, rows, table, until
from servers import TestServers
from teatree.contracts.settings import Settings, StoreSettings
from teatree.embedded.nats import NatsServer
from teatree.storage.catalog.migrations.migrate import migrate
from teatree.storage.objects.stores import open_store
from teatree_manager.activity import LOOK_MS


def store_folder(installation: Installation) -> Path:
    """Return the folder of the local object store."""
    return Path(installation.settings.store.url.removeprefix("file://"))


def outcomes_in_catalog(installation: Installation) -> dict[str, str]:
    """Return the state of every request in the catalog."""
    with installation.postgres() as connection:
        return dict(connection.execute("SELECT request_id, state FROM request_log").fetchall())


def versions_in_catalog(installation: Installation) -> list[int]:
    """Return the numbers of the versions in the catalog."""
    with installation.postgres() as connection:
        found = connection.execute("SELECT version FROM goal_model_version ORDER BY version").fetchall()
    return [number for (number,) in found]


def children_of(pid: int) -> list[int]:
    """Return the pids of a process's children."""
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def catches_up(installation: Installation) -> None:
    """Wait until the catalog has every version and every outcome."""
    newest = installation.chain.newest_version()
    await until(lambda: versions_in_catalog(installation)[-1:] == [newest], lambda: "the catalog")
    assert versions_in_catalog(installation) == list(range(1, newest + 1))
    assert set(outcomes_in_catalog(installation)) == set(installation.sent)


async def test_postgres_away(installation: Installation, servers: TestServers) -> None:
    """Outcomes never wait for PostgreSQL: unavailable at the start or later, it gets every row afterwards."""
    servers.postgres().stop()
    try:
        manager = await installation.created(table("id"))
        assert (await installation.send("append", rows(1), "a1"))["kind"] == "done"
    finally:
        servers.postgres().start()
    await catches_up(installation)
    servers.postgres().stop()
    try:
        for i in range(2, 5):
            assert (await installation.send("append", rows(i), f"a{i}"))["kind"] == "done"
        await manager.kill()
        manager = installation.manager()
        assert (await installation.send("append", rows(5), "a5"))["kind"] == "done"
    finally:
        servers.postgres().start()
    await catches_up(installation)
    assert (await installation.send("append", rows(6), "a6"))["kind"] == "done"
    assert await manager.leave() == 0
    await installation.outcomes()
    installation.check_chain()
    assert installation.read("SELECT id FROM t ORDER BY id") == [(i,) for i in range(1, 7)]


async def test_no_idle_exit_while_the_catalog_is_behind(installation: Installation, servers: TestServers) -> None:
    """An idle manager exits when the catalog has its versions: perhaps no other manager follows."""
    servers.postgres().stop()
    try:
        manager = await installation.created(table("id"))
        assert (await installation.send("append", rows(1), "a1"))["kind"] == "done"
        await manager.kill()
    finally:
        servers.postgres().start()
    with installation.postgres() as connection:
        connection.execute("LOCK TABLE goal_model_version IN EXCLUSIVE MODE")
        manager = installation.manager(TEATREE_MANAGER_IDLE_EXIT_MS="1")
        waits = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        await until(lambda: connection.execute(waits).fetchone() != (0,), manager.output)
        await asyncio.sleep(3 * LOOK_MS / 1000)
        assert "leaving: idle" not in manager.output()
    assert await manager.exit_code() == 0
    assert versions_in_catalog(installation) == list(range(1, installation.chain.newest_version() + 1))


async def test_postgres_stopped(installation: Installation, servers: TestServers) -> None:
    """A PostgreSQL that hangs does not delay outcomes either."""
    await installation.created(table("id"))
    pid = servers.postgres().pid
    assert pid is not None
    children = children_of(pid)
    for process in (pid, *children):
        os.kill(process, signal.SIGSTOP)
    try:
        for i in range(3):
            assert (await installation.send("append", rows(i), f"a{i}"))["kind"] == "done"
    finally:
        for process in (*children, pid):
            os.kill(process, signal.SIGCONT)
    await catches_up(installation)
    await installation.outcomes()


async def test_store_away(installation: Installation) -> None:
    """Without the store's folder outcomes are held back and reads still work; afterwards all outcomes are published."""
    manager = await installation.created(table("id"))
    first = await installation.send("append", rows(1), "a1")
    await installation.ask("SELECT 1", min_version=first["version"])
    folder = store_folder(installation)
    away = folder.with_name("away")
    folder.rename(away)
    await installation.publish("append", rows(2), "a2")
    await manager.until_printed("waits to be shipped")
    await installation.publish("append", rows(3), "a3")
    assert await installation.ask("SELECT id FROM t") == [{"id": 1}]
    assert not await installation.has_outcome("a2")
    assert not folder.exists()
    away.rename(folder)
    assert (await installation.outcome("a3"))["kind"] == "done"
    await installation.outcomes()
    installation.check_chain()
    assert installation.read("SELECT id FROM t ORDER BY id") == [(1,), (2,), (3,)]


async def test_store_away_and_a_new_manager(installation: Installation) -> None:
    """A manager that starts without the store's folder begins no second history; the next one finds it and resumes."""
    manager = await installation.created(table("id"))
    assert (await installation.send("append", rows(1), "a1"))["kind"] == "done"
    await until(lambda: set(outcomes_in_catalog(installation)) == set(installation.sent))
    folder = store_folder(installation)
    away = folder.with_name("away")
    folder.rename(away)
    await installation.publish("append", rows(2), "a2")
    await manager.until_printed("waits to be shipped")
    await manager.kill()
    successor = installation.manager()
    assert await successor.exit_code() == 78
    assert "TEATREE_STORE_URL" in successor.output()
    assert not await installation.has_outcome("a2")
    assert not folder.exists()
    away.rename(folder)
    installation.manager()
    assert (await installation.outcome("a2"))["kind"] == "done"
    await installation.outcomes()
    installation.check_chain()
    assert installation.read("SELECT id FROM t ORDER BY id") == [(1,), (2,)]


async def test_store_away_and_a_dispatcher(installation: Installation) -> None:
    """A dispatcher that cannot read the store rejects nothing: the requests get their outcomes when it is back."""
    dispatcher = installation.dispatcher(TEATREE_MANAGER_IDLE_EXIT_MS="300")
    await installation.send("create_model", table("id"), "create")
    assert (await installation.send("append", rows(1), "a1"))["kind"] == "done"
    await until(lambda: installation.manager_pid() is None)
    folder = store_folder(installation)
    away = folder.with_name("away")
    folder.rename(away)
    await installation.publish("append", rows(2), "a2")
    await dispatcher.until_printed("a model cannot be looked after")
    assert not await installation.has_outcome("a2")
    assert not folder.exists()
    away.rename(folder)
    assert (await installation.outcome("a2"))["kind"] == "done"
    await installation.outcomes()
    assert installation.read("SELECT id FROM t ORDER BY id") == [(1,), (2,)]


async def test_s3_away(
    service_settings: Settings, manager_server: ManagerServer, tmp_path: Path, servers: TestServers
) -> None:
    """The S3 server killed and started again: requests wait for it, none is lost."""
    migrate(service_settings.postgres)
    seaweed = servers.seaweed()
    settings = attrs.evolve(service_settings, store=servers.fresh_bucket_prefix())
    installation = await Installation.make(settings, manager_server, tmp_path)
    try:
        manager = await installation.created(table("id"), TEATREE_BREAKER_FAILURES_MAX="1")
        assert (await installation.send("append", rows(1), "a1"))["kind"] == "done"
        seaweed.stop()
        try:
            await installation.publish("append", rows(2), "a2")
            await manager.until_printed("waits to be shipped: unavailable: The object store is unavailable")
            assert not await installation.has_outcome("a2")
        finally:
            seaweed.start()
        assert (await installation.outcome("a2"))["kind"] == "done"
        assert (await installation.send("archive", {}, "archive"))["kind"] == "done"
        await manager.kill()
        successor = installation.manager()
        assert (await installation.send("append", rows(3), "a3"))["kind"] == "done"
        assert await successor.leave() == 0
        await installation.outcomes()
        installation.check_chain()
        assert installation.read("SELECT id FROM t ORDER BY id") == [(1,), (2,), (3,)]
    finally:
        await installation.close()


async def test_nats_killed(service_settings: Settings, manager_server: ManagerServer, tmp_path: Path) -> None:
    """NATS killed and started again, three times: every accepted request takes effect once and has an outcome."""
    migrate(service_settings.postgres)
    with NatsServer(tmp_path / "nats") as nats:
        settings = attrs.evolve(service_settings, nats=nats.settings())
        installation = await Installation.make(settings, manager_server, tmp_path)
        try:
            manager = await installation.created(table("id"))
            for i in range(3):
                await installation.publish("append", rows(i), f"a{i}")
                assert nats.pid is not None
                os.kill(nats.pid, signal.SIGKILL)
                await until(lambda: not nats.is_running())
                nats.start()
                await installation.reconnected()
            for request_id in installation.sent:
                assert (await installation.outcome(request_id))["kind"] == "done"
            assert manager.code is None
            assert await manager.leave() == 0
            await installation.outcomes()
            installation.check_chain()
            assert installation.read("SELECT id FROM t ORDER BY id") == [(0,), (1,), (2,)]
        finally:
            await installation.close()


@pytest.mark.parametrize("what", ["store", "nats"])
async def test_exits_when_asked(
    service_settings: Settings, manager_server: ManagerServer, tmp_path: Path, what: str
) -> None:
    """A manager that waits for an unavailable part still exits when it is asked to, and its successor resumes."""
    migrate(service_settings.postgres)
    with NatsServer(tmp_path / "nats") as nats:
        settings = attrs.evolve(service_settings, nats=nats.settings())
        installation = await Installation.make(settings, manager_server, tmp_path)
        try:
            manager = await installation.created(table("id"))
            folder, away = store_folder(installation), tmp_path / "away"
            if what == "store":
                folder.rename(away)
                await installation.publish("append", rows(1), "a1")
                await manager.until_printed("waits to be shipped")
                await manager.leave()
                away.rename(folder)
            else:
                nats.stop()
                await manager.until_printed("the log cannot be read")
                await manager.leave()
                nats.start()
                await installation.reconnected()
                await installation.publish("append", rows(1), "a1")
            installation.manager()
            assert (await installation.outcome("a1"))["kind"] == "done"
            await installation.outcomes()
        finally:
            await installation.close()


async def test_wrong_store(installation: Installation, tmp_path: Path) -> None:
    """A manager that is configured with another store begins nothing in it, since the catalog lists other versions."""
    manager = await installation.created(table("id"))
    await until(lambda: set(outcomes_in_catalog(installation)) == set(installation.sent))
    assert await manager.leave() == 0
    await installation.publish("append", rows(1), "a1")
    other = attrs.evolve(StoreSettings(), url=(tmp_path / "other").as_uri())
    wrong: dict[str, Any] = {"TEATREE_STORE_URL": other.url, "TEATREE_DATA": str(tmp_path / "fresh")}
    lost = installation.manager(**wrong)
    assert await lost.exit_code() == 78
    assert "TEATREE_STORE_URL" in lost.output()
    assert not [*open_store(other).list("")]
    right = installation.manager()
    assert (await installation.outcome("a1"))["kind"] == "done"
    assert right.code is None
