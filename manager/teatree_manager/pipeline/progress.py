"""Notices of a long request's progress: best effort, for people and for clients that wait."""

from __future__ import annotations

import asyncio

import structlog

from teatree.contracts.errors import TeatreeError
from teatree.contracts.formats.requests import Request
from teatree.engine.publish.announce import progress_message
from teatree.messaging.bus import Bus

INTERVAL_S = 1.0
"""Seconds between two notices of one request, and before its first: a shorter request publishes none."""


class RequestProgress:
    """Publishes `progress` on a request's subject, from the thread that owns the file."""

    def __init__(self, bus: Bus, loop: asyncio.AbstractEventLoop) -> None:
        self._bus = bus
        self._loop = loop
        self._seq = 0
        self._due = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._log = structlog.get_logger()

    def report(self, request: Request, fraction: float, text: str) -> None:
        """Publish a request's progress if its last notice is long enough ago; returns at once."""
        now = self._bus.clock.monotonic()
        if request.seq != self._seq:
            self._seq, self._due = request.seq, now + INTERVAL_S
        if now < self._due:
            return
        self._due = now + INTERVAL_S
        self._loop.call_soon_threadsafe(self._begin, request, min(max(fraction, 0.0), 1.0), text)

    def _begin(self, request: Request, fraction: float, text: str) -> None:
        task = asyncio.create_task(self._publish(request, fraction, text))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _publish(self, request: Request, fraction: float, text: str) -> None:
        subject, body, headers = progress_message(self._bus.subjects, request, fraction, text, self._bus.clock.now())
        try:
            await self._bus.publish(subject, body, headers)
        except TeatreeError as e:
            self._log.info("progress was not published", request_id=request.request_id, error=str(e))
