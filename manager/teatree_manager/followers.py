"""The followers and periodic tasks of one model, and how they are connected."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from teatree.contracts.failpoints import Failpoint
from teatree.contracts.manifest import Manifest, TableEntry
from teatree.contracts.settings import LimitSettings, ManagerSettings, RetentionSettings, ScrubSettings
from teatree.engine.local_reads import LocalReads
from teatree.engine.local_versions import LocalVersions
from teatree.engine.writer import Writer
from teatree.storage.catalog import Catalog
from teatree.storage.chain import Chain
from teatree.storage.model_folder import ModelFolder
from teatree.storage.segments import Entry
from teatree_manager.archive_follower import ArchiveFollower
from teatree_manager.catalog_follower import CatalogFollower
from teatree_manager.cleanup_task import CleanupTask
from teatree_manager.condition_follower import ConditionFollower
from teatree_manager.follower import Follower
from teatree_manager.head_follower import HeadFollower
from teatree_manager.local_follower import LocalFollower
from teatree_manager.local_scrub_task import LocalScrubTask
from teatree_manager.scrub_task import ScrubTask


class Followers:
    """The followers of one model. No outcome waits for them, except that of an `archive` request for its archive."""

    def __init__(
        self,
        chain: Chain,
        folder: ModelFolder,
        catalog: Catalog | None,
        limits: LimitSettings,
        settings: ManagerSettings,
        retention: RetentionSettings,
        scrub: ScrubSettings,
        failpoint: Failpoint,
        writer: Writer,
        archive_answered: Callable[[int], None],
    ) -> None:
        """`archive_answered` is called with each version whose `archive` request is done."""
        self._newest = 0
        self._faulty: tuple[TableEntry, ...] = ()
        self.reads = LocalReads(limits, folder.archive_staging)
        self._versions = LocalVersions(chain, folder, settings, failpoint)
        self.local = LocalFollower(self._versions, self.reads)
        self._catalog = CatalogFollower(catalog, chain, failpoint) if catalog else None
        self._archive = ArchiveFollower(
            chain,
            self.local,
            self.reads,
            writer,
            settings.archive_interval_ms,
            failpoint,
            self._archived,
            archive_answered,
        )
        self._cleanup = CleanupTask(chain, catalog, retention, limits.remember_days, failpoint)
        self._head = HeadFollower(chain, settings.head_interval_ms)
        self._scrub = ScrubTask(chain, scrub)
        self.condition = (
            ConditionFollower(catalog, chain, self._scrub.remember, lambda: self.damage) if catalog else None
        )
        self._local_scrub = LocalScrubTask(self.local, self._versions, self.reads, scrub)

    @property
    def followers(self) -> list[Follower]:
        """All of them."""
        followers = [self.local, self._head, self._archive, self._cleanup, self._scrub, self._local_scrub]
        return [*followers, *(follower for follower in (self._catalog, self.condition) if follower is not None)]

    @property
    def damage(self) -> dict[int, str]:
        """What is damaged, by version: found by the scrubber, blocking a follower, or a table with a fault."""
        damage = dict(self._scrub.damaged)
        for entry in self._faulty:
            damage.setdefault(entry.changed_in, f"The table {entry.name!r} cannot be used: {entry.fault}")
        for follower in self.followers:
            if follower.damage is not None:
                damage[self._newest] = follower.damage
        return damage

    @property
    def waiting_for(self) -> str | None:
        """What blocks the archive until an operator acts; None otherwise."""
        error = self._archive.over_limit
        return None if error is None else f"the archive cannot be written: {error}"

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
        for follower in self.followers:
            await follower.drained()

    async def close(self) -> None:
        """Close the local files."""
        await asyncio.to_thread(self.reads.close)
        await self.local.with_files(self._versions.close)
