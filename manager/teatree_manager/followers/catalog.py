"""The follower that writes versions into the catalog in PostgreSQL."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping, Sequence

from cachetools import LRUCache
from typing_extensions import override

from teatree.contracts.errors import CorruptError, TeatreeError
from teatree.contracts.formats.manifest import Manifest
from teatree.storage.catalog.catalog import Catalog
from teatree.storage.catalog.projection import CHUNK_VERSIONS, VersionRows, read_version_rows, record, record_archive
from teatree.storage.ledger.segments import Entry
from teatree_manager.context import ManagerContext
from teatree_manager.followers.base import Follower

RECENT_VERSIONS_MAX = 200
"""Versions kept in memory for an unavailable catalog; older ones are read from the store again."""
STUCK_MS = 20_000
"""Milliseconds without a recorded chunk after which the follower is stuck, not catching up; one takes some seconds."""


class CatalogFollower(Follower):
    """Writes the versions into PostgreSQL, in chunks, in order."""

    name = "catalog"
    tolerated = (TeatreeError,)
    """A catalog that is empty or locked, or refuses a row, must not stop its model."""

    def __init__(self, context: ManagerContext, catalog: Catalog) -> None:
        super().__init__(context.probe, context.clock)
        self._catalog = catalog
        self._chain = context.chain
        self._recent: LRUCache[int, VersionRows] = LRUCache(RECENT_VERSIONS_MAX)
        self._archives: dict[int, Manifest] = {}
        self._newest = 0
        self._recorded: int | None = None
        self._recorded_ms = self._clock.monotonic_ms()

    @override
    def follow(self, manifest: Manifest, entries: Sequence[Entry] = ()) -> None:
        self._recent[manifest.version] = (manifest, entries)
        self._newest = max(self._newest, manifest.version)
        self.wake()

    @override
    def archived(self, manifest: Manifest) -> None:
        self._archives[manifest.version] = manifest
        self.wake()

    @property
    @override
    def is_catching_up(self) -> bool:
        """Whether versions are still to be recorded, and some were recorded not long ago."""
        return (self._recorded or 0) < self._newest and self._clock.monotonic_ms() < self._recorded_ms + STUCK_MS

    @override
    async def work(self) -> None:
        if self._recorded is None:
            await asyncio.to_thread(self._catalog.record_error, *self._identity(), None)
            model = await asyncio.to_thread(self._catalog.model, self._chain.model)
            self._recorded = model.version if model else 0
        while self._recorded < self._newest:
            last = min(self._recorded + CHUNK_VERSIONS, self._newest)
            versions = range(self._recorded + 1, last + 1)
            kept = {version: found for version in versions if (found := self._recent.get(version)) is not None}
            rows = await asyncio.to_thread(self._read_rows, versions, kept)
            with self._probe.step("manager.catalog.record", version=last):
                await asyncio.to_thread(record, self._catalog, self._chain, rows)
            self._recorded = last
            self._recorded_ms = self._clock.monotonic_ms()
            for version in [v for v in self._recent if v <= last]:
                del self._recent[version]
        damage = None
        for version, manifest in list(self._archives.items()):
            try:
                await asyncio.to_thread(record_archive, self._catalog, self._chain, manifest)
            except CorruptError as e:  # the other versions are still recorded
                damage = e
            else:
                del self._archives[version]
        if damage is not None:
            raise damage

    def _read_rows(self, versions: range, kept: Mapping[int, VersionRows]) -> list[VersionRows]:
        read = read_version_rows(self._chain, [version for version in versions if version not in kept])
        return [kept[version] if version in kept else next(read) for version in versions]

    def _identity(self) -> tuple[uuid.UUID, str]:
        return uuid.UUID(self._chain.goal_model_id), self._chain.model


def make(context: ManagerContext) -> CatalogFollower | None:
    """Return the follower of a model; None without PostgreSQL."""
    return None if context.catalog is None else CatalogFollower(context, context.catalog)
