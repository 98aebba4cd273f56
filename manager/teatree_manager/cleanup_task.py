"""The periodic task that cleans a model up; no request waits for it."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime

import structlog
from typing_extensions import override

from teatree.contracts.errors import TeatreeError
from teatree.contracts.failpoints import Failpoint
from teatree.contracts.settings import RetentionSettings
from teatree.storage.catalog import Catalog
from teatree.storage.chain import Chain
from teatree.storage.cleanup import Cleanup
from teatree_manager.follower import Follower

LOOK_MS_MAX = 60_000
"""Milliseconds between checks whether a clean-up is due: the store holds when the last one ran, by any manager."""


class CleanupTask(Follower):
    """Cleans the model up when it is due. `health` reports an error, and the next check tries again."""

    name = "cleanup"

    def __init__(
        self,
        chain: Chain,
        catalog: Catalog | None,
        policy: RetentionSettings,
        remember_days: int,
        failpoint: Failpoint,
    ) -> None:
        super().__init__()
        self._interval_ms = policy.interval_ms
        self._stopping = threading.Event()
        self._cleanup = Cleanup(chain, policy, remember_days, catalog, failpoint, self._stopping.is_set)
        self._log = structlog.get_logger().bind(model=chain.model, follower=self.name)

    @override
    async def run(self) -> None:
        if not self._interval_ms:
            return
        try:
            while True:
                await asyncio.sleep(min(self._interval_ms, LOOK_MS_MAX) / 1000)
                try:
                    await self.work()
                except TeatreeError as e:
                    if str(e) != self.error:
                        self._log.warning("could not clean up", error=str(e))
                    self.error = str(e)
                else:
                    self.error = None
        finally:
            self._stopping.set()

    @override
    async def work(self) -> None:
        now = datetime.now(UTC)
        if not await asyncio.to_thread(self._cleanup.due, now):
            return
        cleaned = await asyncio.to_thread(self._cleanup.run, now)
        if cleaned.cleaned or cleaned.objects:
            self._log.info(
                "cleaned up",
                versions=cleaned.cleaned,
                kept=cleaned.kept,
                objects=cleaned.objects,
                bytes=cleaned.bytes,
                stopped=cleaned.stopped,
            )

    @override
    async def drained(self) -> None:
        """Stop: a clean-up need not be completed, the next one resumes it."""
        self._stopping.set()
