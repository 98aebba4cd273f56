"""What a manager answers to `health`."""

from __future__ import annotations

import os
import resource
from typing import Any

from teatree.contracts.own_memory import own_memory
from teatree.engine.writer import Writer
from teatree_manager.context import ManagerContext
from teatree_manager.live.live_queries import LiveQueries
from teatree_manager.manager_tasks import ManagerTasks
from teatree_manager.outcome_publisher import OutcomePublisher
from teatree_manager.read_workers.pool import ReadPool


class Health:
    """Reads the state of a manager's parts."""

    def __init__(
        self,
        context: ManagerContext,
        writer: Writer,
        outcomes: OutcomePublisher,
        followers: ManagerTasks,
        pool: ReadPool,
        live: LiveQueries,
    ) -> None:
        self._context = context
        self._writer = writer
        self._outcomes = outcomes
        self._followers = followers
        self._pool = pool
        self._live = live

    def report(self) -> dict[str, Any]:
        """Return the members of the answer."""
        writer = self._writer
        return {
            "model": self._context.model,
            "state": writer.state.value,
            "epoch": writer.manifest.epoch,
            "version": writer.manifest.version,
            "offset": writer.manifest.offset,
            "served_version": self._followers.local.served,
            "announced_version": self._outcomes.announced_version,
            "waiting_for": self._context.waits.requests,
            "followers": {task.name: task.error for task in self._followers.tasks},
            "read_workers": self._pool.pids,
            "reads_waiting": self._pool.waiting,
            "live_queries": self._live.count,
            "memory_bytes": own_memory().resident,
            "memory_bytes_peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "pid": os.getpid(),
        }
