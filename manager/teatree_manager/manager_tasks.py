"""The followers and periodic tasks of one model, and how they are connected."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from importlib import import_module

from teatree.contracts.formats.manifest import Manifest, TableEntry
from teatree.engine.local.reads import LocalReads
from teatree.engine.local.versions import LocalVersions
from teatree.engine.writer import Writer
from teatree.storage.ledger.segments import Entry
from teatree_manager import followers
from teatree_manager.context import ManagerContext
from teatree_manager.followers.archive import ArchiveFollower
from teatree_manager.followers.base import Follower
from teatree_manager.followers.local_file import LocalFollower
from teatree_manager.manager_task import ManagerTask
from teatree_manager.outcome_publisher import OutcomePublisher
from teatree_manager.periodic.cleanup import CleanupTask
from teatree_manager.periodic.condition import ConditionTask
from teatree_manager.periodic.local_scrub import LocalScrubTask
from teatree_manager.periodic.scrub import ScrubTask

FOLLOWERS = (
    "head",
    "catalog",
)
"""The files in `followers` that define `make`, which returns a follower, or None where a model needs none."""
_MODULES = [import_module(f"{followers.__name__}.{name}") for name in FOLLOWERS]


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
        self._archive = ArchiveFollower(
            context, self.local, self.reads, writer, self._archived, outcomes.archive_answered
        )
        others = (module.make(context) for module in _MODULES)
        self._followers: list[Follower] = [self.local, self._archive, *(made for made in others if made is not None)]
        self._cleanup = CleanupTask(context, limits.remember_days)
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
        tasks = [*self._followers, self._cleanup, self._scrub, self._local_scrub]
        return tasks if self._condition is None else [*tasks, self._condition]

    def add(self, follower: Follower) -> None:
        """Let another follower follow the versions, before the first."""
        self._followers.append(follower)

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
        for follower in self._followers:
            follower.archived(manifest)

    def follow(self, manifest: Manifest, entries: Sequence[Entry], archive: Sequence[str] | None = None) -> None:
        """Take a version as the newest; `archive` names the tables that a request of it wants archived, () for all."""
        self._newest = manifest.version
        self._faulty = tuple(entry for entry in manifest.tables if entry.fault is not None)
        for follower in self._followers:
            follower.follow(manifest, entries)
        if archive is not None:
            self.wait_for_archive(manifest, archive)

    def wait_for_archive(self, manifest: Manifest, tables: Sequence[str]) -> None:
        """Archive these tables of a version, all if it names none."""
        self._archive.wait_for(manifest, tables)

    @property
    def are_catching_up(self) -> bool:
        """Whether a follower lags and makes progress."""
        return any(follower.is_catching_up for follower in self._followers)

    async def drained(self) -> None:
        """Wait until no follower has work: at once, and then in order: each may give work to those after it."""
        await asyncio.gather(*(task.drained() for task in self.tasks))
        for task in self.tasks:
            await task.drained()

    async def close(self) -> None:
        """Close the local files."""
        await asyncio.to_thread(self.reads.close)
        await self.local.with_files(self._versions.close)
