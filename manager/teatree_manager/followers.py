"""The lanes behind the versions: the local version file, the catalogue, the Parquet archive."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from typing_extensions import override

from teatree.contracts.errors import OperatorError, RetryError
from teatree.contracts.failpoints import Failpoint
from teatree.contracts.manifest import Manifest
from teatree.engine.archive import write_archive
from teatree.engine.local_reads import LocalReads
from teatree.engine.local_versions import LocalVersions
from teatree.storage.archives import Archived
from teatree.storage.catalog import Catalog
from teatree.storage.chain import Chain
from teatree.storage.projection import CHUNK_VERSIONS, Told, read_told, record, record_archive
from teatree.storage.segments import Entry
from teatree.storage.versions import materialise
from teatree_manager.lane import Lane

TIDY_MS = 2_000
"""Milliseconds between looks at old local files: readers close them when they like."""
RECENT_VERSIONS_MAX = 200
"""Versions kept in memory for the catalogue while it is away; older ones are read from the store again."""


class LocalLane(Lane):
    """Keeps the newest version as a local file and answers direct reads from it."""

    name = "local"

    def __init__(self, versions: LocalVersions, reads: LocalReads) -> None:
        super().__init__()
        self._versions = versions
        self._reads = reads
        self._manifest: Manifest | None = None
        self._moved = asyncio.Condition()
        self._path: Path | None = None
        self._later: asyncio.TimerHandle | None = None
        self._user_version = 0
        self.current: Manifest | None = None
        """The version that the local file holds; None while there is none."""
        self.is_gone = False
        """Whether the newest version says that there is no model."""
        self.moved: Callable[[], None] = lambda: None
        """Called when there is another local file."""
        self.served = 0
        """The newest version that reads answer for: its user tables are those of the local file."""

    def follow(self, manifest: Manifest) -> None:
        """Take a version as the newest."""
        self._manifest = manifest
        self.poke()

    @override
    async def work(self) -> None:
        manifest = self._manifest
        if manifest is None:
            return
        if manifest.file is None:
            await asyncio.to_thread(self._versions.drop)
            await asyncio.to_thread(self._reads.close)
            self.current = None
            self.is_gone = True
        elif self._path is None or manifest.user_version > self._user_version:
            self._versions.in_use = self._reads.in_use()
            pause_ms = await asyncio.to_thread(self._versions.pause_ms, manifest)
            if pause_ms > 0:
                await asyncio.sleep(pause_ms / 1000)
                self.poke()  # a newer one may have come meanwhile
                return
            self._path = await asyncio.to_thread(self._versions.publish, manifest)
            await asyncio.to_thread(self._reads.switch, manifest.version, self._path)
            self._user_version = manifest.version
            self.current = manifest
            self.is_gone = False
            self.moved()
        async with self._moved:
            self.served = manifest.version
            self._moved.notify_all()
        await self._tidy()

    async def _tidy(self) -> None:
        self._versions.in_use = self._reads.in_use()
        again = await asyncio.to_thread(self._versions.tidy)
        if self._later is not None:
            self._later.cancel()
        self._later = asyncio.get_running_loop().call_later(TIDY_MS / 1000, self.poke) if again else None

    async def wait_for(self, version: int, timeout_ms: float) -> bool:
        """Wait until reads answer for a version or a newer one; False if it takes longer."""
        try:
            async with asyncio.timeout(timeout_ms / 1000), self._moved:
                await self._moved.wait_for(lambda: self.served >= version)
        except TimeoutError:
            return False
        return True


class CatalogLane(Lane):
    """Writes the versions into PostgreSQL, in chunks, never back."""

    name = "catalog"
    tolerated = (RetryError, OperatorError)  # a catalogue that is empty or locked up must not stop its model

    def __init__(self, catalog: Catalog, chain: Chain, failpoint: Failpoint) -> None:
        super().__init__()
        self._catalog = catalog
        self._chain = chain
        self._failpoint = failpoint
        self._recent: dict[int, Told] = {}
        self._archives: dict[int, Manifest] = {}
        self._newest = 0
        self._recorded: int | None = None

    def follow(self, manifest: Manifest, entries: Sequence[Entry]) -> None:
        """Have a version recorded."""
        self._recent[manifest.version] = (manifest, entries)
        if len(self._recent) > RECENT_VERSIONS_MAX:
            del self._recent[next(iter(self._recent))]
        self._newest = max(self._newest, manifest.version)
        self.poke()

    def archived(self, manifest: Manifest) -> None:
        """Have a version's Parquet files recorded."""
        self._archives[manifest.version] = manifest
        self.poke()

    @override
    async def work(self) -> None:
        if self._recorded is None:
            await asyncio.to_thread(self._catalog.record_error, *self._identity(), None)
            model = await asyncio.to_thread(self._catalog.model, self._chain.model)
            self._recorded = model.version if model else 0
        while self._recorded < self._newest:
            last = min(self._recorded + CHUNK_VERSIONS, self._newest)
            told = await asyncio.to_thread(self._told, self._recorded + 1, last)
            self._failpoint("manager.catalog.before_record")
            await asyncio.to_thread(record, self._catalog, self._chain, told)
            self._recorded = last
            for version in [v for v in self._recent if v <= last]:
                del self._recent[version]
        for version, manifest in list(self._archives.items()):
            await asyncio.to_thread(record_archive, self._catalog, self._chain, manifest)
            del self._archives[version]

    def _told(self, first: int, last: int) -> list[Told]:
        kept = [self._recent.get(v) for v in range(first, last + 1)]
        return [
            found if found is not None else next(read_told(self._chain, version, version))
            for version, found in zip(range(first, last + 1), kept, strict=True)
        ]

    def _identity(self) -> tuple[uuid.UUID, str]:
        return uuid.UUID(self._chain.goal_model_id), self._chain.model


class ArchiveLane(Lane):
    """Writes the local version's changed tables as Parquet, and those that an `archive` request waits for."""

    name = "archive"

    def __init__(
        self,
        chain: Chain,
        local: LocalLane,
        reads: LocalReads,
        interval_ms: int,
        failpoint: Failpoint,
        complete: Callable[[Manifest], None],
    ) -> None:
        super().__init__()
        self._chain = chain
        self._local = local
        self._reads = reads
        self._interval_ms = interval_ms
        self._failpoint = failpoint
        self._complete = complete
        self._barriers: list[tuple[Manifest, Sequence[str]]] = []
        self._last: Archived | None = None
        self._last_ms = 0.0
        local.moved = self.poke

    def wait_for(self, manifest: Manifest, tables: Sequence[str]) -> None:
        """Archive these tables of a version, or all if it names none; `complete` is called when they are there."""
        self._barriers.append((manifest, tables or [table.name for table in manifest.tables]))
        self.poke()

    @override
    async def work(self) -> None:
        while self._barriers:
            await self._archive(*self._barriers[0])
            self._barriers.pop(0)
        current = self._local.current
        if current is None or (self._last is not None and current.version <= self._last.version):
            return
        pause_ms = self._interval_ms - (time.monotonic() * 1000 - self._last_ms)
        if pause_ms > 0:
            await asyncio.sleep(pause_ms / 1000)
            self.poke()  # a newer one, or a barrier, may have come meanwhile
            return
        await self._archive(current, ())
        self._last_ms = time.monotonic() * 1000

    async def _archive(self, manifest: Manifest, wanted: Sequence[str]) -> None:
        if manifest.file is not None:
            archived = await asyncio.to_thread(self._write, manifest, wanted)
            if self._last is None or archived.version > self._last.version:
                self._last = archived
        self._complete(manifest)

    def _write(self, manifest: Manifest, wanted: Sequence[str]) -> Archived:
        with TemporaryDirectory(prefix="teatree-archive-") as folder:

            def restore() -> Path:
                path = Path(folder) / "version.duckdb"
                materialise(self._chain.store, manifest, path)
                return path

            with self._reads.source(manifest.version, restore) as source:
                return write_archive(self._chain, manifest, source, self._last, wanted, self._failpoint)
