"""The preparation of the next version, on the newest shipped one.

Concurrency: `base` may be read by any thread; the thread that owns the file calls everything else.
"""

from __future__ import annotations

from attrs import frozen

from teatree.contracts.manifest import Manifest
from teatree.engine.apply.batch import Applied
from teatree.engine.apply.ledger import Ledger
from teatree.engine.apply.transaction import NextVersion
from teatree.engine.model_context import ModelContext
from teatree.engine.publish.offsets import Offsets
from teatree.engine.publish.prepared import Author, CapturedFile, PreparedVersion, batch_after, new_write_id
from teatree.storage.versions.packs import BlockTable


@frozen
class Base:
    """A shipped version."""

    manifest: Manifest
    table: BlockTable
    """Where its blocks lie."""


class VersionPreparer:
    """Prepares versions; each is based on the newest that was shipped."""

    def __init__(self, context: ModelContext, author: Author, ledger: Ledger, base: Base) -> None:
        self.author = author
        self._clock = context.clock
        self.ledger = ledger
        self.base = base
        """Manifest and blocks of the newest shipped version, replaced together."""
        self._offsets = Offsets(context.chain)

    def next_version(self, newest: Applied) -> NextVersion:
        """Return the version after the `newest` batch, which may not be shipped yet."""
        manifest = self.base.manifest
        return NextVersion(
            version=max(newest.version, manifest.version) + 1,
            write_id=new_write_id(),
            shipped_version=manifest.content_version,
            offset_of=self._offset_of,
        )

    def _offset_of(self, version: int) -> int:
        return self._offsets.find(version, self.base.manifest.version)

    def prepare(self, applied: Applied, file: CapturedFile | None, announced_version: int) -> PreparedVersion:
        """Return a batch's version, ready to be shipped; `file` is what was captured of the model's file."""
        ledger = self.ledger.reference(applied.version)
        now = self._clock.now()
        manifest = batch_after(self.base.manifest, applied, file, ledger, announced_version, self.author, now)
        capture = file.capture if file is not None else None
        steps = file.steps if file is not None else applied.steps
        return PreparedVersion(manifest, applied.entries, applied.segment, steps, capture, applied.archive)

    def advance(self, shipped: PreparedVersion) -> None:
        """Take a shipped version as the base of the next."""
        manifest = shipped.manifest
        table = shipped.capture.table if shipped.capture is not None else self.base.table
        self.base = Base(manifest, table)
        self._offsets.remember(manifest)
        self.ledger.shipped(manifest.version)
