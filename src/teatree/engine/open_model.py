"""An open model: its read-write file, and the batch that is being applied to it.

Concurrency: one thread uses it; any may take its `database`, for what a `Database` allows other threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs
from attrs import frozen

from teatree.contracts.errors import Code, RetryError, TeatreeError
from teatree.contracts.manifest import Manifest, ModelState
from teatree.contracts.requests import LogPosition, Request
from teatree.engine.apply.batch import Applied, Batch
from teatree.engine.apply.commits import Commit, adopt_commits, committed_position, read_commits
from teatree.engine.apply.transaction import ModelFile
from teatree.engine.duckdb.changes import Checkpoint
from teatree.engine.duckdb.database import Database, reopened
from teatree.engine.duckdb.errors import DamagedFileError, InvalidatedError, damage_of_file
from teatree.engine.duckdb.handle import WriteHandle
from teatree.engine.duckdb.snapshot import Capture, capture
from teatree.engine.history import StoredHistory, unchanged_tables
from teatree.engine.model_context import ModelContext
from teatree.engine.publish.prepared import CapturedFile, PreparedVersion, table_entries
from teatree.engine.publish.preparer import VersionPreparer
from teatree.engine.recovery import recovered
from teatree.storage.versions.packs import BlockTable


@frozen
class Captured:
    """What the next capture is compared with."""

    table: BlockTable
    """The blocks that are in the store."""
    checkpoint: Checkpoint | None
    """The file's checkpoint that they are of; without it every block in use is compared."""


@frozen
class InvalidatedFile:
    """A file that is opened again before its next use: DuckDB invalidated its database, or keeps memory allocated."""

    database: Database
    error: InvalidatedError


class OpenModel:
    """Applies batches to a model's file and captures versions of it.

    A `RetryError` leaves what was committed: the call is repeated with the requests that `rest_of` returns. Raises
    DamagedFileError if the file does not hold the commits that were made to it.
    """

    def __init__(
        self, context: ModelContext, preparer: VersionPreparer, database: Database, captured: Captured, newest: Applied
    ) -> None:
        """`context` has the model's own limits; `newest` is the batch that was applied last."""
        self.limits = context.limits
        self.preparer = preparer
        self._context = context
        self._captured = captured
        self._newest = newest
        self._batch: Batch | None = None
        """The batch that an error has stopped, to be resumed."""
        self._file: ModelFile | InvalidatedFile = self._use(database)

    @property
    def database(self) -> Database:
        """The database that was opened last."""
        return self._file.database

    @property
    def state(self) -> ModelState:
        """Active, or dropped by a batch that is not shipped yet."""
        return ModelState.DROPPED if self._newest.dropped else ModelState.ACTIVE

    @property
    def position(self) -> LogPosition:
        """The position of the last request that is committed."""
        return committed_position(self.database)

    def recover(self, unshipped: Sequence[Commit]) -> Applied:
        """Take over commits that a crash left unshipped, as one batch."""
        manifest = self.preparer.base.manifest
        applied = recovered(unshipped, manifest, self.preparer.ledger, self._context.functions)
        with self.database.transaction():
            adopt_commits(self.database, manifest.content_version, applied.version, applied.write_id)
        self._newest = applied
        return applied

    def apply(self, requests: Sequence[Request]) -> Applied:
        """Apply a batch; after an error it resumes where it stopped."""
        with self._working() as model_file:
            if self._batch is None:
                self._batch = self._new_batch(model_file)
            applied = self._batch.apply(requests)
        self._batch, self._newest = None, applied
        self._give_memory_back(applied)
        return applied

    def set_aside(self, request: Request, error: TeatreeError) -> Applied:
        """Commit that a request had no effect, with its error."""
        with self._working() as model_file:
            self._newest = self._new_batch(model_file).refuse(request, error)
        return self._newest

    def rest_of(self, batch: Sequence[Request]) -> Sequence[Request]:
        """Return the requests of a batch that are not committed after an error."""
        with self._working():
            offset = self.position.seq
            return [request for request in batch if request.seq > offset]

    def capture(self, applied: Applied, announced_version: int) -> PreparedVersion:
        """Checkpoint, and pack what the batch changed; the version before must be the base."""
        with self._working() as model_file, self._context.probe.step("manager.capture", version=applied.version):
            applied = attrs.evolve(applied, steps=applied.steps.then("wait"))
            file = None if applied.dropped else self._capture(model_file, applied)
            return self.preparer.prepare(applied, file, announced_version)

    def compare_with(self, shipped: Capture) -> None:
        """Compare the next capture with one that was shipped."""
        self._captured = Captured(shipped.table, shipped.checkpoint)

    # --- the file ----------------------------------------------------------------------------------------------------

    def _use(self, database: Database) -> ModelFile:
        chain = self._context.chain
        history = StoredHistory(chain, database, self._unchanged_since)
        return ModelFile(
            database=database,
            handle=WriteHandle(database, self.limits),
            ledger=self.preparer.ledger,
            context=self._context.for_functions(history),
            functions=self._context.functions,
            put_page=self._put_page,
            probe=self._context.probe,
        )

    def _unchanged_since(self, manifest: Manifest) -> frozenset[str]:
        """Return the tables of a version that neither a later one changed nor the batch that is not shipped yet."""
        base = self.preparer.base.manifest
        pending = self._newest.changed_tables if self._newest.version > base.version else frozenset()
        return unchanged_tables(manifest, base) - pending

    def _put_page(self, key: str, body: bytes) -> None:
        chain = self._context.chain
        chain.store.put(chain.key(key), body)

    @contextmanager
    def _working(self) -> Iterator[ModelFile]:
        """Run the block on a file that works; note an error after which it must be opened again."""
        model_file = self._file if isinstance(self._file, ModelFile) else self._reopen(self._file)
        try:
            yield model_file
        except InvalidatedError as e:
            self._file = InvalidatedFile(model_file.database, e)
            raise
        except RetryError as e:
            if e.code is Code.OVER_LIMIT:  # a request that failed was refused, but its memory was not released
                self._file = InvalidatedFile(model_file.database, InvalidatedError(e.code, e.message))
            raise

    def _reopen(self, file: InvalidatedFile) -> ModelFile:
        """Open the file again: the writer's fence is still valid, and the write-ahead log holds all commits."""
        path = file.database.path
        file.database.close()
        database = reopened(path, self.limits, self._context.hooks.on_stuck, file.error, self._context.clock)
        try:
            self._adopt(read_commits(database), path)
        except BaseException:
            database.close()
            raise
        self._captured = Captured(self._captured.table, None)
        self._file = model_file = self._use(database)
        if self._batch is not None:
            self._batch.use(model_file)
        return model_file

    def _adopt(self, commits: Sequence[Commit], path: Path) -> None:
        """Take over the commits that the file holds: a COMMIT that failed may have reached the disk."""
        known = self._newest.offset
        if self._batch is not None:
            self._batch.adopt(commits)
            known = max(known, self._batch.offset)
        if max((c.offset for c in commits), default=0) != known:
            raise DamagedFileError("The file does not hold the commits that were made to it.", where=str(path))

    def _give_memory_back(self, applied: Applied) -> None:
        """Have the file opened again if a request that failed left memory allocated, as rolled-back updates do."""
        if any((e.outcome.error or {}).get("code") == Code.OVER_LIMIT for e in applied.entries):
            error = self.database.held_memory()
            if error is not None:
                self._file = InvalidatedFile(self.database, error)

    def _new_batch(self, model_file: ModelFile) -> Batch:
        return Batch(model_file, self.preparer.next_version(self._newest), self._newest.last_effect_seq)

    def _capture(self, model_file: ModelFile, applied: Applied) -> CapturedFile:
        database = model_file.database
        probe, steps = self._context.probe, applied.steps
        with probe.step("manager.capture.checkpoint", version=applied.version):
            database.checkpoint()
        steps = steps.then("capture.checkpoint")
        with probe.step("manager.capture.pack", version=applied.version):
            packed = self._pack(database, applied)
        tables = table_entries(model_file.handle, self.preparer.base.manifest, applied)
        return CapturedFile(packed, tables, steps.then("capture.pack"))

    def _pack(self, database: Database, applied: Applied) -> Capture:
        """Pack what differs from the version before; damage found here is the local file's."""
        table, since = self._captured.table, self._captured.checkpoint
        folder, spool = self._context.chain.folder, self._context.folder.spool
        with damage_of_file():
            return capture(database, table, since, applied.version, applied.write_id, folder, spool)
