"""The versions of a model, read from the object store alone."""

from __future__ import annotations

import asyncio
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from teatree.client.named_model import NamedModel
from teatree.client.versions.pull import Pulled, PullProgress, VersionInfo, find_version, list_versions, pull_version
from teatree.storage.versions.chain import Chain

if TYPE_CHECKING:
    import duckdb

    from teatree.client.versions.attach import Attached
    from teatree.client.versions.diff import VersionDiff


class ModelVersions(NamedModel):
    """The versions of one model."""

    def chain(self) -> Chain:
        """Return the chain of the model's versions in the object store."""
        return Chain(self.connection.store, self.connection.settings.nats.prefix, self.name)

    async def versions(self, limit: int = 20) -> list[VersionInfo]:
        """Return the newest versions, newest first, from the object store alone."""
        return await asyncio.to_thread(lambda: list_versions(self.chain(), limit))

    async def find_version(self, version: int | None = None, *, at: datetime | str | None = None) -> int:
        """Return the number of an existing version: the given one, the newest at a moment, or the newest."""
        return (await asyncio.to_thread(lambda: find_version(self.chain(), version, at))).version

    async def pull(
        self,
        path: str | Path,
        *,
        version: int | None = None,
        at: datetime | str | None = None,
        progress: PullProgress | None = None,
        rehash: bool = False,
    ) -> Pulled:
        """Make `path` an ordinary DuckDB file of a version (the newest), from the object store alone.

        `at` picks the newest version at that moment. A file that was pulled before is patched: only blocks that differ
        are fetched, and a process that has the old one open keeps it. `rehash` verifies the kept blocks, too.
        `progress` is called, in another thread, with the bytes in place and those of the whole file.
        """
        return await asyncio.to_thread(
            lambda: pull_version(
                self.chain(),
                Path(path),
                version=version,
                at=at,
                progress=progress,
                cache_folder=self.connection.settings.cache_folder,
                rehash=rehash,
                probe=self.connection.probe,
            )
        )

    async def diff(self, before: int, after: int, *, table: str | None = None, rows: int = 0) -> VersionDiff:
        """Return the differences between two versions, by table, with up to `rows` rows of each kind of change.

        Reads only the object store, and only the tables that changed in between.
        """
        from teatree.client.versions.diff import diff_versions  # noqa: PLC0415 - DuckDB, only for this

        settings = self.connection.settings
        return await asyncio.to_thread(
            lambda: diff_versions(self.chain(), settings, before, after, table=table, rows_max=rows)
        )

    def attach(
        self,
        con: duckdb.DuckDBPyConnection,
        *,
        version: int | None = None,
        at: datetime | str | None = None,
        follow: bool = False,
        alias: str | None = None,
    ) -> Attached:
        """Attach a version to a DuckDB connection, its blocks fetched as queries need them: see `teatree.attach`."""
        from teatree.client.versions.attach import attach_chain  # noqa: PLC0415 - DuckDB, only for this

        settings = self.connection.settings
        return attach_chain(con, self.chain(), settings, version=version, at=at, follow=follow, alias=alias)
