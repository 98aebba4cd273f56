"""The periodic task that cleans a model up; no request waits for it."""

from __future__ import annotations

import asyncio
import threading

from typing_extensions import override

from teatree.storage.retention.cleanup import Cleanup
from teatree_manager.context import ManagerContext
from teatree_manager.periodic.base import PeriodicTask

LOOK_MS_MAX = 60_000
"""Milliseconds between checks whether a clean-up is due: the store holds when the last one ran, by any manager."""


class CleanupTask(PeriodicTask):
    """Cleans the model up when it is due."""

    name = "cleanup"

    def __init__(self, context: ManagerContext, remember_days: int) -> None:
        policy = context.settings.retention
        super().__init__(context.model, min(policy.interval_ms, LOOK_MS_MAX), context.probe, context.clock)
        self._stopping = threading.Event()
        self._cleanup = Cleanup(
            context.chain, policy, remember_days, context.catalog, context.probe, self._stopping.is_set
        )

    @override
    async def run(self) -> None:
        try:
            await super().run()
        finally:
            self._stopping.set()

    @override
    async def work(self) -> None:
        now = self._clock.now()
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
