"""Versions whose outcomes an earlier manager may not have published."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from teatree.contracts.errors import TeatreeError
from teatree.contracts.formats.manifest import Manifest, Stub
from teatree.storage.ledger.segments import Entry, Role, read_segment
from teatree_manager.context import ManagerContext
from teatree_manager.followers.base import retrying
from teatree_manager.manager_tasks import ManagerTasks
from teatree_manager.outcome_publisher import OutcomePublisher


class UnannouncedVersions:
    """Publishes the outcomes of such versions again; repeated notices are identical."""

    def __init__(
        self, context: ManagerContext, versions: range, outcomes: OutcomePublisher, followers: ManagerTasks
    ) -> None:
        self._chain = context.chain
        self._log = context.log
        self._clock = context.clock
        self._versions = versions
        self._outcomes = outcomes
        self._followers = followers

    async def run(self) -> None:
        """Publish them in their order, then return."""
        for version in self._versions:
            manifest, entries = await retrying(
                partial(self._read, version), partial(self._report, version), self._clock
            )
            if isinstance(manifest, Stub):  # a paused manager has marked it as published, and a clean-up removed it
                self._outcomes.pass_over(version)
                continue
            await self._outcomes.put(manifest, entries)
            for entry in entries:
                if entry.role is Role.FIRST and self._outcomes.is_barrier(entry.outcome) and entry.outcome.result:
                    self._followers.wait_for_archive(manifest, entry.outcome.result.get("tables", ()))

    def _read(self, version: int) -> tuple[Manifest | Stub, Sequence[Entry]]:
        manifest = self._chain.entry(version)
        if isinstance(manifest, Stub):
            return manifest, ()
        return manifest, read_segment(self._chain.store, self._chain.folder, manifest)

    def _report(self, version: int, error: TeatreeError) -> None:
        self._log.warning("publishing outcomes again waits for the store", version=version, error=str(error))
