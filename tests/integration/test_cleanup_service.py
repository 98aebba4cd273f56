"""A manager that cleans up all the time: requests, restarts, resends and the catalog are not affected."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

from processes import MODEL, Installation, Running, rows, table, until
from teatree.contracts.formats.manifest import Manifest, ModelState, Stub
from teatree.contracts.settings import RetentionSettings
from teatree.storage.catalog.catalog import Catalog
from teatree.storage.catalog.postgres import Postgres
from teatree.storage.catalog.projection import rebuild
from teatree.storage.retention.cleanup import Cleanup


def tidy_manager(installation: Installation, data: Path | None = None, interval_ms: int = 40) -> Running:
    """Start a manager that keeps nothing but the newest version, and cleans up all the time."""
    return installation.manager(
        data=data,
        TEATREE_RETENTION_GRACE_MS="500",  # its followers lag behind
        TEATREE_RETENTION_KEEP_ALL_HOURS="0",
        TEATREE_RETENTION_HOURLY_DAYS="0",
        TEATREE_RETENTION_DAILY_DAYS="0",
        TEATREE_RETENTION_ARCHIVE_HOURS="0",
        TEATREE_RETENTION_INTERVAL_MS=str(interval_ms),
    )


async def test_requests_and_restarts_beside_clean_ups(installation: Installation) -> None:
    """Thirty versions, cleaned up as they come, two managers killed: one effect and one outcome each, resends too."""
    await installation.publish("create_model", table("id", "v", key="id"), "create")
    manager = tidy_manager(installation)
    for number in range(30):
        await installation.send("append", rows(number), f"a{number}")
        if number % 7 == 3:
            await installation.send("query", {"sql": "SELECT * FROM t", "page_size": 2}, f"q{number}")
            await installation.send("archive", {}, f"archive{number}")
        if number in (9, 19):
            await manager.kill()
            manager = tidy_manager(installation, installation.folder / f"host{number}")
    chain = installation.chain
    extra = 0
    while not isinstance(chain.entry(5), Stub):  # later versions record how far outcomes are published
        await asyncio.sleep(0.2)
        extra += 1
        await installation.send("query", {"sql": "SELECT 1"}, f"extra{extra}")
    before = await installation.outcomes()
    for number in (0, 10, 25):
        await installation.send("append", rows(number), f"a{number}")
        await installation.send("update", {"table": "t", "set": {"v": 1}, "where": {"id": number}}, f"u{number}")
    assert await manager.leave() == 0
    after = await installation.outcomes()
    assert before.items() <= after.items()
    assert {o["kind"] for o in after.values()} == {"done"}
    assert installation.read("SELECT count(*), sum(v) FROM t") == [(30, 3)]


async def test_an_idle_model_is_cleaned_up(installation: Installation) -> None:
    """Without further requests all versions but the newest are cleaned up, and no outcome is published again."""
    await installation.publish("create_model", table("id"), "create")
    manager = tidy_manager(installation)
    for number in range(3):
        await installation.send("append", rows(number), f"a{number}")
    chain = installation.chain
    newest = chain.newest_version()
    await until(lambda: all(isinstance(chain.entry(number), Stub) for number in range(1, newest)))
    assert chain.newest_version() == newest
    await manager.kill()
    before = await installation.notices()
    manager = tidy_manager(installation)
    await installation.send("append", rows(9), "last")
    assert await manager.leave() == 0
    after = await installation.notices()
    assert {name: sent for name, sent in after.items() if name != "last"} == before
    assert installation.read("SELECT count(*) FROM t") == [(4,)]


async def test_the_catalog_lists_what_exists(installation: Installation) -> None:
    """After clean-ups exactly the objects of the store are listed, and a rebuild gives the same."""
    await installation.publish("create_model", table("id", "v", key="id"), "create")
    manager = tidy_manager(installation, interval_ms=0)
    for number in range(8):
        await installation.send("append", rows(number), f"a{number}")
    await installation.send("query", {"sql": "SELECT * FROM t", "page_size": 2}, "q")
    await installation.send("archive", {}, "archive")
    await installation.send("append", rows(50), "last")
    assert await manager.leave() == 0
    postgres = Postgres(installation.settings.postgres)
    catalog = Catalog(postgres)
    chain = installation.chain
    try:
        for policy in (
            RetentionSettings(),
            RetentionSettings(grace_ms=0, keep_all_hours=0, hourly_days=0, daily_days=0, archive_hours=0),
        ):
            moment = datetime.now(UTC) + timedelta(minutes=1)
            Cleanup(chain, policy, 30, catalog).run(moment)
            numbers = range(1, chain.newest_version() + 1)
            there = [v for v in numbers if isinstance(chain.entry(v), Manifest)]
            listed = _listed(catalog, installation)
            assert listed == _present(installation)
            assert [row.version for row in catalog.versions(MODEL)] == there[::-1]
            rebuild(chain.store, catalog, installation.settings.nats.prefix)
            assert _listed(catalog, installation) == listed
            assert [row.version for row in catalog.versions(MODEL)] == there[::-1]
            assert {row.request_id for row in catalog.requests(MODEL)} == set(installation.sent)
    finally:
        postgres.close()


def _listed(catalog: Catalog, installation: Installation) -> set[str]:
    root = Path(unquote(urlsplit(installation.chain.store.url).path))
    rows = catalog.contents(MODEL, limit=10_000)
    return {str(Path(unquote(urlsplit(row.uri).path)).relative_to(root)) for row in rows}


def _present(installation: Installation) -> set[str]:
    chain = installation.chain
    found = {info.key for info in chain.store.list(chain.folder) if "/index.json" not in info.key}
    kinds = {"packs", "outcomes", "archive", "pages"}
    objects = {key for key in found if key.split("/")[2] in kinds and not key.endswith((".run", ".archive"))}
    whole = {chain.get(v).version for v in chain.kept_numbers() if isinstance(chain.entry(v), Manifest)}
    batches = {v for v in whole if chain.get(v).state is ModelState.ACTIVE and chain.get(v).kind.value == "batch"}
    return objects | {chain.manifest_key(v) for v in batches}
