"""Fixtures for all tests. Servers are real, start with the first test that needs them, and run for the session.

- `nats_server`: `NatsSettings` with a subject prefix of the test's own.
- `postgres_server`: `PostgresSettings` of a new, empty database, dropped after the test.
- `s3_server`: `StoreSettings` with a key prefix of the test's own in a real S3 server's bucket.
- `file_store`: `StoreSettings` of an empty local folder.
- `object_store_settings`: a test that takes it runs twice, with `file_store` and with `s3_server`.
- `service_settings`: `Settings` of NATS, PostgreSQL and `file_store` with an own data folder, for our processes.
- `installation`: those, and processes that the test starts: see `processes`.
- `servers`: the servers themselves (`servers.nats()`, …), to kill and start one; leave it running.

`contracts.settings.connection_environ(settings)` gives the variables with which to start our processes.
`hang_hooks` and `process_monitor` limit what a test can do to the others.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import hypothesis
import pytest

import servers as running
from hang_hooks import (  # noqa: F401 - hooks
    process_monitor,
    pytest_configure,
    pytest_timeout_cancel_timer,
    pytest_timeout_set_timer,
)
from processes import Installation, ManagerServer
from servers import TestServers
from teatree.contracts.settings import NatsSettings, PostgresSettings, Settings, StoreSettings
from teatree.storage.catalog.migrations.migrate import migrate

# These machines are noisy: a slow example is not a failure.
hypothesis.settings.register_profile("teatree", deadline=None)
hypothesis.settings.load_profile("teatree")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Make the form on S3 of a test that is `slow_on_s3` a slow one."""
    for item in items:
        if item.get_closest_marker("slow_on_s3") and isinstance(item, pytest.Function):
            kinds = {str(value) for value in item.callspec.params.values()}
            if "s3" in kinds:
                item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestServers]:
    """Return the session's servers; each starts when it is first used."""
    started = TestServers(tmp_path_factory.mktemp("servers"))
    yield started
    started.stop()


@pytest.fixture
def nats_server(servers: TestServers) -> NatsSettings:
    """Return access to NATS under a subject prefix of the test's own."""
    return servers.fresh_nats()


@pytest.fixture
def postgres_server(servers: TestServers) -> Iterator[PostgresSettings]:
    """Return access to an empty database of the test's own."""
    database = servers.fresh_database()
    yield database
    servers.drop_database(database)


@pytest.fixture
def s3_server(servers: TestServers) -> StoreSettings:
    """Return access to S3 under a key prefix of the test's own."""
    return servers.fresh_bucket_prefix()


@pytest.fixture
def file_store(tmp_path: Path) -> StoreSettings:
    """Return access to an object store in an empty local folder."""
    return running.file_store(tmp_path / "store")


@pytest.fixture(params=["file", "s3"])
def object_store_settings(request: pytest.FixtureRequest) -> StoreSettings:
    """Return access to an empty store of each kind in turn."""
    settings: StoreSettings = request.getfixturevalue("file_store" if request.param == "file" else "s3_server")
    return settings


@pytest.fixture
def service_settings(
    nats_server: NatsSettings, postgres_server: PostgresSettings, file_store: StoreSettings, tmp_path: Path
) -> Settings:
    """Return the settings of a process of ours, everything in them the test's own."""
    return Settings(nats=nats_server, postgres=postgres_server, store=file_store, data=tmp_path / "data")


@pytest.fixture(scope="session")
def manager_server() -> Iterator[ManagerServer]:
    """Return a server that starts managers and dispatchers quickly."""
    server = ManagerServer()
    yield server
    server.close()


@pytest.fixture
async def installation(
    service_settings: Settings, manager_server: ManagerServer, tmp_path: Path
) -> AsyncIterator[Installation]:
    """Return an installation with PostgreSQL and a store in a folder, without running processes."""
    migrate(service_settings.postgres)
    made = await Installation.make(service_settings, manager_server, tmp_path)
    yield made
    await made.close()
