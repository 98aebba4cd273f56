"""The preparation of the next version, on the newest shipped one.

Concurrency: `base` may be read by any thread; the thread that owns the file calls everything else.
"""

from __future__ import annotations

from teatree.contracts.formats.manifest import Manifest
from teatree.engine.apply.batch import Applied
from teatree.engine.apply.ledger import Ledger
from teatree.engine.apply.transaction import NextVersion
from teatree.engine.model_context import ModelContext
from teatree.engine.publish.offsets import Offsets
from teatree.engine.publish.prepared import Author, CapturedData, PreparedVersion, batch_after, new_write_id


class VersionPreparer:
    """Prepares versions; each is based on the newest that was shipped."""

    def __init__(self, context: ModelContext, author: Author, ledger: Ledger, base: Manifest) -> None:
        self.author = author
        self._clock = context.clock
        self.ledger = ledger
        self.base = base
        """The manifest of the newest shipped version."""
        self._offsets = Offsets(context.chain)

    def next_version(self, newest: Applied) -> NextVersion:
        """Return the version after the `newest` batch, which may not be shipped yet."""
        return NextVersion(
            version=max(newest.version, self.base.version) + 1,
            write_id=new_write_id(),
            shipped_version=self.base.content_version,
            offset_of=self._offset_of,
        )

    def _offset_of(self, version: int) -> int:
        return self._offsets.find(version, self.base.version)

    def prepare(self, applied: Applied, data: CapturedData | None, announced_version: int) -> PreparedVersion:
        """Return a batch's version, ready to be shipped; `data` is what was captured of the model's data."""
        ledger = self.ledger.reference(applied.version)
        now = self._clock.now()
        manifest = batch_after(self.base, applied, data, ledger, announced_version, self.author, now)
        captured = data.captured if data is not None else None
        steps = data.steps if data is not None else applied.steps
        return PreparedVersion(manifest, applied.entries, applied.segment, steps, captured, applied.archive)

    def advance(self, shipped: PreparedVersion) -> None:
        """Take a shipped version as the base of the next."""
        self.base = shipped.manifest
        self._offsets.remember(shipped.manifest)
        self.ledger.shipped(shipped.manifest.version)
