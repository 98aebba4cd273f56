"""A model's open DuckDB file: its commits, and the capture of its versions as changed blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from attrs import frozen
from typing_extensions import override

from teatree.contracts.errors import Code
from teatree.contracts.formats.manifest import Manifest
from teatree.contracts.formats.steps import Steps
from teatree.engine.base import Captured, EngineContext, ModelData, Upload
from teatree.engine.commits import Commit, Identity
from teatree.engine.duckdb.changes import Checkpoint
from teatree.engine.duckdb.commit_table import adopt_commits, read_commits, read_identity
from teatree.engine.duckdb.database import Database, reopened
from teatree.engine.duckdb.history import StoredHistory
from teatree.engine.duckdb.snapshot import Capture, capture
from teatree.engine.duckdb.write_connection import DuckDBConnection
from teatree.engine.errors import InvalidatedError, damage_of_file
from teatree.storage.versions.packs import BlockTable
from teatree.storage.versions.reader import layout_of, materialise

HELD_FRACTION = 8
"""Divisor of the memory limit: as much may stay allocated after a request that ran out of memory."""


@frozen
class CaptureBase:
    """What the next capture is compared with."""

    table: BlockTable
    """The blocks that are in the store."""
    checkpoint: Checkpoint | None
    """The file's checkpoint that they are of; without it every block in use is compared."""


@frozen
class PackedContent(Captured):
    """Changed blocks in a pack."""

    capture: Capture


# More than ten public methods: those of `ModelData`.
class DuckDBData(ModelData):
    """One open read-write file."""

    def __init__(self, context: EngineContext, database: Database, base: CaptureBase) -> None:
        self.database = database
        database.others = context.others
        self._context = context
        self._base = base
        self._before = base.table
        """The blocks of the version before the base: another thread may restore it still."""
        self._connection = DuckDBConnection(database, context.limits)

    @property
    @override
    def connection(self) -> DuckDBConnection:
        return self._connection

    @override
    def identity(self) -> Identity:
        return read_identity(self.database)

    @override
    def commits(self) -> Sequence[Commit]:
        return read_commits(self.database)

    @override
    def adopt(self, shipped_version: int, version: int, write_id: str) -> None:
        with self.database.transaction():
            adopt_commits(self.database, shipped_version, version, write_id)

    @override
    def capture(self, version: int, write_id: str, steps: Steps) -> PackedContent:
        """Checkpoint, and pack the blocks that differ; damage found here is the local file's."""
        probe = self._context.probe
        with probe.step("manager.capture.checkpoint", version=version):
            self.database.checkpoint()
        steps = steps.then("capture.checkpoint")
        folder, spool, base = self._context.chain.folder, self._context.folder.spool, self._base
        with probe.step("manager.capture.pack", version=version), damage_of_file():
            found = capture(self.database, base.table, base.checkpoint, version, write_id, folder, spool)
        uploads = (Upload(found.pack, found.path),)
        return PackedContent(found.layout, found.pack, uploads, steps.then("capture.pack"), found)

    @override
    def shipped(self, captured: Captured) -> None:
        if not isinstance(captured, PackedContent):
            raise TypeError(captured)
        self._before = self._base.table
        self._base = CaptureBase(captured.capture.table, captured.capture.checkpoint)

    @override
    def history(self, unchanged: Callable[[Manifest], frozenset[str]]) -> StoredHistory:
        return StoredHistory(self._context.chain, self.database, unchanged)

    @override
    def restore(self, manifest: Manifest, place: Path) -> None:
        layout, tables = layout_of(manifest), (self._base.table, self._before)
        known = next((t for t in tables if (t.leaves, t.bases) == (layout.leaves, layout.bases)), None)
        store, at_hand = self._context.chain.store, self.database.read_if_there
        materialise(store, manifest, place, table=known, at_hand=at_hand)

    @override
    def exhausted(self) -> InvalidatedError | None:
        """Return that memory stays allocated while no statement runs, as rolled-back updates leave it."""
        held_bytes = self.database.held_bytes()
        if held_bytes <= self._context.limits.memory_bytes_max // HELD_FRACTION:
            return None
        return InvalidatedError(Code.UNAVAILABLE, f"{held_bytes} bytes were not released.")

    @override
    def reopened(self, error: InvalidatedError) -> DuckDBData:
        self.database.close()
        context = self._context
        database = reopened(self.database.path, context.limits, context.on_stuck, error, context.clock)
        return DuckDBData(self._context, database, CaptureBase(self._base.table, None))

    @override
    def close(self) -> None:
        self.database.close()
