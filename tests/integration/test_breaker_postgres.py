"""The circuit breaker around a real PostgreSQL that becomes unavailable."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
from typing_extensions import override

from servers import TestServers
from teatree.contracts.settings import BreakerSettings, PostgresSettings
from teatree.storage.breaker import Breaker
from teatree.storage.catalog.catalog import Catalog
from teatree.storage.catalog.migrations.migrate import migrate
from teatree.storage.catalog.postgres import Postgres
from teatree_manager.followers.base import Follower

FOLLOWERS = 8
AWAY_S = 2.0


class CountingPostgres(Postgres):
    """A database that counts the tries to connect to it."""

    def __init__(self, settings: PostgresSettings, breaker: Breaker) -> None:
        super().__init__(settings, breaker=breaker)
        self.tries = 0

    @override
    def connect(self) -> psycopg.Connection[Any]:
        self.tries += 1
        return super().connect()


class _CatalogFollower(Follower):
    """Reads the catalog once each time that it is woken."""

    name = "reading"

    def __init__(self, catalog: Catalog) -> None:
        super().__init__()
        self._catalog = catalog
        self.answers = 0

    @override
    async def work(self) -> None:
        await asyncio.to_thread(self._catalog.models)
        self.answers += 1


async def test_many_followers_try_little_and_all_catch_up(
    postgres_server: PostgresSettings, servers: TestServers
) -> None:
    """Eight followers that find PostgreSQL unavailable try no more often than one would; all end when it is back."""
    migrate(postgres_server)
    postgres = CountingPostgres(postgres_server, Breaker("PostgreSQL", BreakerSettings()))
    followers = [_CatalogFollower(Catalog(postgres)) for _ in range(FOLLOWERS)]
    running = [asyncio.create_task(follower.run()) for follower in followers]
    await asyncio.to_thread(servers.postgres().stop)
    try:
        postgres.close()
        for follower in followers:
            follower.wake()
        await asyncio.sleep(AWAY_S)
        tries = postgres.tries
        assert all(
            follower.error is not None and "PostgreSQL is unavailable" in follower.error for follower in followers
        )
    finally:
        await asyncio.to_thread(servers.postgres().start)
    async with asyncio.timeout(60):
        await asyncio.gather(*(follower.drained() for follower in followers))
    assert [(follower.answers, follower.error) for follower in followers] == [(1, None)] * FOLLOWERS
    # One try of each follower at first, then one try of all of them after each growing pause, from 50 ms on.
    assert tries <= FOLLOWERS + 10
    for task in running:
        task.cancel()
