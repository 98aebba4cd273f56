"""The followers and periodic tasks of one model, and how they are connected."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from teatree.contracts.manifest import Manifest, TableEntry
from teatree.engine.local.reads import LocalReads
from teatree.engine.local.versions import LocalVersions
from teatree.engine.writer import Writer
from teatree.storage.ledger.segments import Entry
from teatree_manager.context import ManagerContext
from teatree_manager.followers.archive import ArchiveFollower
from teatree_manager.followers.catalog import CatalogFollower
from teatree_manager.followers.head import HeadFollower
from teatree_manager.followers.local_file import LocalFollower
from teatree_manager.manager_task import ManagerTask
from teatree_manager.outcome_publisher import OutcomePublisher
from teatree_manager.periodic.cleanup import CleanupTask
from teatree_manager.periodic.condition import ConditionTask
from teatree_manager.periodic.local_scrub import LocalScrubTask
from teatree_manager.periodic.scrub import ScrubTask


class ManagerTasks:
    """The followers of one model. No outcome waits for them, except that of an `archive` request for its archive."""

    def __init__(self, context: ManagerContext, writer: Writer, outcomes: OutcomePublisher) -> None:
        """`outcomes` holds the outcome of each `archive` request back until it is archived."""
        settings, chain, limits = context.settings, context.chain, writer.limits
        self._newest = 0
        self._faulty: tuple[TableEntry, ...] = ()
        self.reads = LocalReads(limits, context.folder.archive_staging)
        self._versions = LocalVersions(
            chain, context.folder, settings.manager, context.probe, self.reads.in_use, context.clock
        )
        self.local = LocalFollower(self._versions, self.reads, context.probe, context.clock)
        self._catalog = CatalogFollower(context, context.catalog) if context.catalog else None
        self._archive = ArchiveFollower(
            context, self.local, self.reads, writer, self._archived, outcomes.archive_answered
        )
        self._cleanup = CleanupTask(context, limits.remember_days)
        self._head = HeadFollower(context)
        self._scrub = ScrubTask(chain, settings.scrub, context.probe, context.clock)
        self._condition = (
            ConditionTask(context, context.catalog, self._scrub.remember, self._current_damage)
            if context.catalog
            else None
        )
        self._local_scrub = LocalScrubTask(context, self.local, self._versions, self.reads)

    @property
    def tasks(self) -> list[ManagerTask]:
        """All followers and periodic tasks."""
        tasks = [self.local, self._head, self._archive, self._cleanup, self._scrub, self._local_scrub]
        return [*tasks, *(task for task in (self._catalog, self._condition) if task is not None)]

    def _current_damage(self) -> dict[int, str]:
        """Return what is damaged, by version: found by a scrub, blocking a follower, or a table with a fault."""
        damage = dict(self._scrub.damaged)
        for entry in self._faulty:
            damage.setdefault(entry.changed_in, f"The table {entry.name!r} cannot be used: {entry.fault}")
        for task in self.tasks:
            if task.damage is not None:
                damage[self._newest] = task.damage
        return damage

    def _archived(self, manifest: Manifest) -> None:
        if self._catalog is not None:
            self._catalog.archived(manifest)

    def follow(self, manifest: Manifest, entries: Sequence[Entry], archive: Sequence[str] | None = None) -> None:
        """Take a version as the newest; `archive` names the tables that a request of it wants archived, () for all."""
        self._newest = manifest.version
        self._faulty = tuple(entry for entry in manifest.tables if entry.fault is not None)
        self.local.follow(manifest)
        self._head.follow(manifest)
        if archive is not None:
            self.wait_for_archive(manifest, archive)
        if self._catalog is not None:
            self._catalog.follow(manifest, entries)

    def wait_for_archive(self, manifest: Manifest, tables: Sequence[str]) -> None:
        """Archive these tables of a version, all if it names none."""
        self._archive.wait_for(manifest, tables)

    @property
    def are_catching_up(self) -> bool:
        """Whether the local file or the catalog lags: an idle model gets no next manager that would continue them."""
        return self.local.is_behind or (self._catalog is not None and self._catalog.is_catching_up)

    async def drained(self) -> None:
        """Wait until no follower has work: in order, since each may give work to those after it."""
        for task in self.tasks:
            await task.drained()

    async def close(self) -> None:
        """Close the local files."""
        await asyncio.to_thread(self.reads.close)
        await self.local.with_files(self._versions.close)
