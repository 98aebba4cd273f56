"""The breaker round a real PostgreSQL that goes away."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
from typing_extensions import override

from servers import TestServers
from teatree.contracts.settings import BreakerSettings, PostgresSettings
from teatree.storage.breaker import Breaker
from teatree.storage.catalog import Catalog
from teatree.storage.migrations.migrate import migrate
from teatree.storage.postgres import Postgres
from teatree_manager.lane import Lane

LANES = 8
AWAY_S = 4.0


class CountingPostgres(Postgres):
    """A database that counts the tries to connect to it."""

    def __init__(self, settings: PostgresSettings, breaker: Breaker) -> None:
        super().__init__(settings, breaker=breaker)
        self.tries = 0

    @override
    def connect(self) -> psycopg.Connection[Any]:
        self.tries += 1
        return super().connect()


class AskingLane(Lane):
    """Asks the catalogue once each time that it is poked."""

    name = "asking"

    def __init__(self, catalog: Catalog) -> None:
        super().__init__()
        self._catalog = catalog
        self.answers = 0

    @override
    async def work(self) -> None:
        await asyncio.to_thread(self._catalog.models)
        self.answers += 1


async def test_many_lanes_try_little_and_all_catch_up(postgres_server: PostgresSettings, servers: TestServers) -> None:
    """Eight lanes that find PostgreSQL away try it no more often than one would, and end all when it is back."""
    migrate(postgres_server)
    postgres = CountingPostgres(postgres_server, Breaker("PostgreSQL", BreakerSettings()))
    lanes = [AskingLane(Catalog(postgres)) for _ in range(LANES)]
    running = [asyncio.create_task(lane.run()) for lane in lanes]
    await asyncio.to_thread(servers.postgres().stop)
    try:
        postgres.close()
        for lane in lanes:
            lane.poke()
        await asyncio.sleep(AWAY_S)
        tries = postgres.tries
        assert all(lane.error is not None and "PostgreSQL is away" in lane.error for lane in lanes)
    finally:
        await asyncio.to_thread(servers.postgres().start)
    async with asyncio.timeout(60):
        await asyncio.gather(*(lane.drained() for lane in lanes))
    assert [(lane.answers, lane.error) for lane in lanes] == [(1, None)] * LANES
    # As many as meet it at once, then growing pauses from 50 ms on: one try each, not one a lane.
    assert tries <= LANES + 10
    for task in running:
        task.cancel()
