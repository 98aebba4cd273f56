"""`progress` notices: at most one a second for a request, in order, and only best effort."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

from manual_clock import ManualClock
from teatree.client.notice import read_notice
from teatree.contracts.errors import Code, RetryError
from teatree.contracts.formats.notices import Kind
from teatree.contracts.formats.requests import Request
from teatree.messaging.subjects import Subjects
from teatree_manager.pipeline.progress import RequestProgress


class _FakeBus:
    """Keeps what is published."""

    def __init__(self) -> None:
        self.subjects = Subjects("t")
        self.clock = ManualClock()
        self.published: list[tuple[str, bytes]] = []
        self.away = False

    async def publish(self, subject: str, body: bytes, _: Any) -> None:
        """Keep a message, or be away."""
        if self.away:
            raise RetryError(Code.UNAVAILABLE, "NATS is away.")
        self.published.append((subject, body))


def request(seq: int) -> Request:
    """Return a `load`."""
    return Request("sales", "load", seq, datetime(2026, 1, 1, tzinfo=UTC), f"id{seq}")


async def test_some_reports_are_published() -> None:
    """Reports between two notices are dropped, also before the first one; another thread may report."""
    bus: Any = _FakeBus()
    reporter = RequestProgress(bus, asyncio.get_running_loop())
    for seq in (1, 2):
        for step in range(31):
            await asyncio.to_thread(reporter.report, request(seq), step / 30, f"{step} rows")
            bus.clock.advance(0.1)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    notices = [read_notice(subject, {}, body) for subject, body in bus.published]
    assert [(n.kind, n.request_id, n.function) for n in notices] == [
        (Kind.PROGRESS, f"id{seq}", "load") for seq in (1, 2) for _ in range(len(notices) // 2)
    ]
    assert 2 <= len(notices) // 2 <= 3
    texts = [n.members["text"] for n in notices[: len(notices) // 2]]
    assert texts == sorted(texts, key=lambda text: int(text.split()[0]))
    assert all(0 < json.loads(body)["fraction"] <= 1 for _, body in bus.published)
    assert not notices[0].is_terminal


async def test_a_report_that_is_not_published_harms_nothing() -> None:
    """NATS is unavailable: the work continues."""
    bus: Any = _FakeBus()
    bus.away = True
    reporter = RequestProgress(bus, asyncio.get_running_loop())
    reporter._seq = 1
    reporter.report(request(1), 0.5, "half")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert bus.published == []
