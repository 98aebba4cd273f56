"""The real servers that tests run against: each is started once per session, by the first test that needs it."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TypeVar

import psycopg
import pytest
from attrs import evolve

from teatree.contracts.settings import NatsSettings, PostgresSettings, StoreSettings
from teatree.embedded.nats import NatsServer
from teatree.embedded.postgres import USER, PostgresServer
from teatree.embedded.seaweed import SeaweedServer
from teatree.embedded.server import Server

S = TypeVar("S", bound=Server)
S3_IS_SLOW = pytest.mark.parametrize(
    "object_store_settings", ["file", pytest.param("s3", marks=pytest.mark.slow)], indirect=True
)
"""A test that asks nothing of a store but what other quick tests ask of S3 too: its S3 form repeats them."""


class TestServers:
    """NATS, PostgreSQL and an S3 server in one folder, each started when it is first used.

    The server objects themselves (`nats()`, `postgres()`, `seaweed()`) are for tests that stop, kill or restart one;
    they must leave it running.
    """

    __test__ = False  # pytest: this is no test class

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: dict[str, Server] = {}

    def nats(self) -> NatsServer:
        """Return the running NATS server."""
        return self._started_once(NatsServer)

    def postgres(self) -> PostgresServer:
        """Return the running PostgreSQL server."""
        return self._started_once(PostgresServer)

    def seaweed(self) -> SeaweedServer:
        """Return the running S3 server."""
        return self._started_once(SeaweedServer)

    def fresh_nats(self) -> NatsSettings:
        """Return access to NATS under a new subject prefix."""
        return self.nats().settings(prefix=_fresh_name())

    def fresh_database(self) -> PostgresSettings:
        """Return access to a new, empty database."""
        server, name = self.postgres(), _fresh_name()
        self.run_sql(server.superuser_settings(), f"CREATE DATABASE {name} OWNER {USER}")
        return server.settings(name)

    def fresh_bucket_prefix(self) -> StoreSettings:
        """Return access to S3 under a new key prefix."""
        return self.seaweed().settings(prefix=_fresh_name())

    def drop_database(self, database: PostgresSettings) -> None:
        """Drop a database that `fresh_database` made, and end its connections."""
        name = psycopg.conninfo.conninfo_to_dict(database.url or "")["dbname"]
        self.run_sql(self.postgres().superuser_settings(), f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def stop(self) -> None:
        """Stop all servers that were started."""
        while self._started:
            self._started.popitem()[1].stop()

    @staticmethod
    def run_sql(database: PostgresSettings, statement: str) -> None:
        """Run one statement outside a transaction."""
        with psycopg.connect(database.url or "", password=database.password, autocommit=True) as connection:
            connection.execute(statement.encode())

    def _started_once(self, kind: type[S]) -> S:
        server = self._started.setdefault(kind.name, kind(self._folder / kind.name))
        assert isinstance(server, kind)
        server.start()  # does nothing if it runs
        return server


def file_store(folder: Path) -> StoreSettings:
    """Return access to an object store in a local folder."""
    return evolve(StoreSettings(), url=folder.absolute().as_uri())


def _fresh_name() -> str:
    return f"t{uuid.uuid4().hex[:12]}"
