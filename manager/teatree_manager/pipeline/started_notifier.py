"""Notices that work on a long request has begun: best effort, for people and for clients that wait."""

from __future__ import annotations

import asyncio

import structlog

from teatree.contracts.errors import TeatreeError
from teatree.contracts.formats.requests import Request
from teatree.engine.publish.announce import started_message
from teatree.messaging.bus import Bus
from teatree.storage.catalog.rows import started_row
from teatree_manager.context import ManagerContext


class StartedNotifier:
    """Publishes `started` on a request's subject and in the catalog, without delaying the work."""

    def __init__(self, context: ManagerContext, bus: Bus) -> None:
        self._bus = bus
        self._catalog = context.catalog
        self._goal_model_id = context.goal_model_id
        self._tasks: set[asyncio.Task[None]] = set()
        self._log = structlog.get_logger()

    def notify(self, request: Request) -> None:
        """Publish that a request has begun; returns at once."""
        task = asyncio.create_task(self._publish(request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _publish(self, request: Request) -> None:
        subject, body, headers = started_message(self._bus.subjects, request)
        try:
            await self._bus.publish(subject, body, headers)
            if self._catalog is not None:
                row = started_row(self._goal_model_id, request)
                await asyncio.to_thread(self._catalog.record_requests, [row])
        except TeatreeError as e:
            self._log.info("the `started` notice could not be published", request_id=request.request_id, error=str(e))
