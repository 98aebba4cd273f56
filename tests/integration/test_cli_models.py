"""`teatree models` shows whether a model is damaged and what its requests wait for, as text and as JSON."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import attrs

from commands import run_command
from damage import flipped
from processes import MODEL, Installation, ManagerServer, rows, table, until, until_async
from servers import TestServers
from teatree.contracts.settings import Settings
from teatree.embedded.nats import NatsServer
from teatree.storage.archives import archived_versions
from teatree.storage.catalog.migrations.migrate import migrate


async def printed(installation: Installation, *arguments: str) -> str:
    """Return what `teatree models` prints."""
    done = await asyncio.to_thread(run_command, installation.environ(None, None, {}), "models", *arguments)
    assert done.code == 0, done.err
    return done.out


async def models(installation: Installation) -> list[tuple[str, str, str | None]]:
    """Return name, state and reason of all models, and check that the text shows the same."""
    found: list[dict[str, Any]] = json.loads(await printed(installation, "--json"))
    text = await printed(installation)
    for model in found:
        state = f"{model['state']}: {model['why']}" if model["why"] else model["state"]
        if state not in text:  # it changed between the two commands
            return []
    return [(model["name"], model["state"], model["why"]) for model in found]


async def becomes(installation: Installation, state: str, *reasons: str) -> None:
    """Wait until the model has a state, with a reason that contains all of these texts."""

    async def has_come() -> bool:
        seen[:] = await models(installation)
        return any(s == state and all(r in (why or "") for r in reasons) for _, s, why in seen)

    seen: list[tuple[str, str, str | None]] = []
    try:
        await until_async(has_come)
    except TimeoutError:
        raise AssertionError(seen) from None
    assert [name for name, *_ in seen] == [MODEL]
    assert reasons or seen[0][2] is None


def store_folder(installation: Installation) -> Path:
    """Return the folder of the local object store."""
    return Path(installation.settings.store.url.removeprefix("file://"))


async def begin(installation: Installation) -> None:
    """Make the model with one row."""
    await installation.send("create_model", table("id"), "create")
    await installation.send("append", rows(1), "a1")


async def test_the_store_away(installation: Installation) -> None:
    """While the store is unavailable the model waits, with the version as the reason; then it is as before."""
    installation.manager()
    await begin(installation)
    await becomes(installation, "active")
    folder = store_folder(installation)
    away = folder.with_name("away")
    folder.rename(away)
    await installation.publish("append", rows(2), "a2")
    await becomes(installation, "waits", "waits to be shipped", "unavailable")
    away.rename(folder)
    assert (await installation.outcome("a2"))["kind"] == "done"
    await becomes(installation, "active")


async def test_nats_away(service_settings: Settings, manager_server: ManagerServer, tmp_path: Path) -> None:
    """While NATS is unavailable the model waits for the log, and the catalog shows it."""
    migrate(service_settings.postgres)
    with NatsServer(tmp_path / "nats") as nats:
        settings = attrs.evolve(service_settings, nats=nats.settings())
        installation = await Installation.make(settings, manager_server, tmp_path)
        try:
            installation.manager()
            await begin(installation)
            nats.stop()
            await becomes(installation, "waits", "the log cannot be read")
            nats.start()
            await becomes(installation, "active")
        finally:
            await installation.close()


async def test_postgres_away(installation: Installation, servers: TestServers) -> None:
    """While PostgreSQL is unavailable the models come from the store, with a reason why their state may lack parts."""
    installation.manager()
    await begin(installation)
    servers.postgres().stop()
    try:
        await becomes(installation, "active", "the catalog is unavailable")
    finally:
        servers.postgres().start()
    await becomes(installation, "active")


async def test_damage_in_the_store(installation: Installation) -> None:
    """A model with a damaged version is damaged until a scrub finds it whole, whether it has a manager or not."""
    manager = installation.manager(TEATREE_SCRUB_INTERVAL_MS="20")
    await begin(installation)
    manifest = installation.chain.newest()
    assert manifest is not None
    assert manifest.pack is not None
    newest = (await installation.send("append", rows(2), "a2"))["version"]
    # From here on no follower needs the pack: the scrub finds the damage.
    await installation.ask("SELECT 1", min_version=newest)
    await until(lambda: newest in archived_versions(installation.chain))
    key = installation.chain.key(manifest.pack.key)
    body = installation.chain.store.get(key)
    installation.chain.store.put(key, flipped(body, len(body) // 2))
    await becomes(installation, "damaged", f"version {manifest.version}", "corrupt", key)
    assert (await installation.send("append", rows(3), "a3"))["kind"] == "done"
    assert await manager.leave() == 0
    await becomes(installation, "damaged", key)
    manager = installation.manager(TEATREE_SCRUB_INTERVAL_MS="3600000")
    assert (await installation.send("append", rows(4), "a4"))["kind"] == "done"
    assert await manager.leave() == 0
    await becomes(installation, "damaged", key)
    installation.chain.store.put(key, body)
    installation.manager(TEATREE_SCRUB_INTERVAL_MS="20")
    await becomes(installation, "active")


async def test_a_manager_that_stops_for_damage(installation: Installation) -> None:
    """A model whose newest manifest is damaged stops for an operator, and is shown as damaged."""
    manager = installation.manager()
    await begin(installation)
    assert await manager.leave() == 0
    key = installation.chain.manifest_key(installation.chain.newest_version())
    body = installation.chain.store.get(key)
    installation.chain.store.put(key, body.replace(b'"epoch"', b'"apoch"'))
    assert await installation.manager().exit_code() == 78
    await becomes(installation, "damaged", "corrupt")
    installation.chain.store.put(key, body)
    installation.manager()
    await becomes(installation, "active")
