"""A bus with its own log and notices, and a plain way to fill them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from teatree.contracts.settings import NatsSettings
from teatree.messaging.bus import Bus
from teatree.messaging.streams import ensure_streams


@asynccontextmanager
async def bus_with_streams(settings: NatsSettings) -> AsyncIterator[Bus]:
    """Yield a bus with both streams, which are deleted at the end."""
    bus = await Bus.connect(settings, name="test")
    await ensure_streams(bus, log_bytes_max=50_000_000, notices_age_s=3600, notices_max=10_000)
    yield bus
    if bus.is_connected:
        for stream in (bus.subjects.requests_stream, bus.subjects.notices_stream):
            await bus.js(f"STREAM.DELETE.{stream}")
    await bus.close()


async def send(bus: Bus, model: str, count: int = 1, body: bytes = b"{}") -> int:
    """Publish requests one by one; return the sequence of the last."""
    seq = 0
    for i in range(count):
        seq = (await bus.publish_log(bus.subjects.request(model, "append"), body, {"Teatree-Request-Id": f"r{i}"})).seq
    return seq
