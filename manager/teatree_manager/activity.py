"""How busy a manager is: when it may leave, and when it has time for what can wait."""

from __future__ import annotations

from teatree_manager.context import ManagerContext
from teatree_manager.live.live_queries import LiveQueries
from teatree_manager.manager_tasks import ManagerTasks
from teatree_manager.outcome_publisher import OutcomePublisher
from teatree_manager.pipeline.pipeline import Pipeline
from teatree_manager.reads import DirectReads

LOOK_MS = 250


class Activity:
    """Reads the state of a manager's parts."""

    def __init__(
        self,
        context: ManagerContext,
        pipeline: Pipeline,
        outcomes: OutcomePublisher,
        followers: ManagerTasks,
        reads: DirectReads,
        live: LiveQueries,
    ) -> None:
        self._idle_exit_ms = context.settings.manager.idle_exit_ms
        self._log = context.log
        self._clock = context.clock
        self._pipeline = pipeline
        self._outcomes = outcomes
        self._followers = followers
        self._reads = reads
        self._live = live

    def is_answered(self) -> bool:
        """Return whether all requests in the log are applied and their outcomes published, as far as it was read."""
        return self._pipeline.is_idle and self._outcomes.is_done

    def idle_ms(self) -> float:
        """Return the milliseconds since the last request if all are answered, else 0."""
        return self._clock.monotonic_ms() - self._pipeline.last_request_ms if self.is_answered() else 0.0

    async def until_idle(self) -> None:
        """Wait until the manager is to leave: without requests, reads and watchers for a time, and without work left.

        A manager with work left would only be started again.
        """
        while True:
            await self._clock.sleep_async(LOOK_MS / 1000)
            last_ms = max(self._pipeline.last_request_ms, self._reads.last_ms, self._live.last_ms)
            idle_ms = self._clock.monotonic_ms() - last_ms
            has_work = self._pipeline.is_applying or not self._outcomes.is_done or self._followers.are_catching_up
            if self._idle_exit_ms and idle_ms > self._idle_exit_ms and not has_work:
                self._log.info("leaving: idle", idle_ms=round(idle_ms))
                return
