"""Fixtures of several files of integration tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from dispatcher_world import RoundCounter, World
from teatree.contracts.probe import probe_for
from teatree.contracts.settings import NatsSettings, StoreSettings
from teatree.messaging.bus import Bus
from teatree.messaging.streams import ensure_streams, log_state
from teatree.storage.objects.stores import open_store


@pytest.fixture
async def world(nats_server: NatsSettings, file_store: StoreSettings) -> AsyncIterator[World]:
    """Return a fresh log and store with a dispatcher that is not started yet."""
    rounds = RoundCounter()
    bus = await Bus.connect(nats_server, name="test", probe=probe_for([rounds]))
    await ensure_streams(bus, log_bytes_max=50_000_000, notices_age_s=3600, notices_max=10_000)
    made = World(bus, open_store(file_store), (await log_state(bus)).created, rounds)
    yield made
    await made.close()
    for stream in (bus.subjects.requests_stream, bus.subjects.notices_stream):
        await bus.js(f"STREAM.DELETE.{stream}")
    await bus.close()
