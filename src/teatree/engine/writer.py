"""The one writer of a model: takes it over, applies batches, captures versions, ships them.

Concurrency: `take_over`, `apply`, `capture` and `advance_base` belong to one thread; `ship` may run on another while
the next batch is applied. At most one captured version waits to be shipped: the next capture begins when it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs

from teatree.contracts.errors import Code, OperatorError, RequestError, RetryError, TeatreeError
from teatree.contracts.manifest import Manifest, ModelOptions, ModelState
from teatree.contracts.notices import Outcome
from teatree.contracts.requests import LogPosition, Request
from teatree.engine.batch import FAILED_CODES, Applied, Batch
from teatree.engine.changes import Checkpoint
from teatree.engine.commits import Commit, adopt_commits, committed_position, read_commits
from teatree.engine.database import Database, reopened
from teatree.engine.duckdb_errors import DamagedFileError, InvalidatedError, damage_of_file
from teatree.engine.handle import WriteHandle
from teatree.engine.history import StoredHistory, unchanged_tables
from teatree.engine.incarnation import CreatedModel, create_model_file, outcome_without_file
from teatree.engine.ledger import Ledger
from teatree.engine.model_context import ModelContext
from teatree.engine.offsets import Offsets
from teatree.engine.outcomes import outside_entries
from teatree.engine.prepared_version import (
    Author,
    PreparedVersion,
    batch_after,
    fence_after,
    new_write_id,
    table_entries,
)
from teatree.engine.recovery import recovered
from teatree.engine.shipping import ship
from teatree.engine.snapshot import Capture, capture, captured_checkpoint
from teatree.engine.takeover import discard_files, put_aside, take_file
from teatree.engine.transaction import ModelFile, NextVersion
from teatree.functions.arguments import Context
from teatree.storage.dead_letters import keep_dead_letter
from teatree.storage.packs import BlockTable
from teatree.storage.segments import Entry
from teatree.storage.versions import read_table


class Writer:
    """Owns one model's file, ledger and end of the chain."""

    def __init__(self, context: ModelContext, author: Author) -> None:
        self._context = context
        self._author = author
        self.chain = context.chain
        self.folder = context.folder
        self.limits = context.limits
        self.failpoint = context.failpoint
        self.functions = context.functions
        self.ledger = Ledger(context.chain, context.folder.ledger, context.limits)
        self._manifest: Manifest | None = None
        self._database: Database | None = None
        self._invalidated: InvalidatedError | None = None
        """Why DuckDB invalidated the open database; None while it works."""
        self._model_file: ModelFile | None = None
        self._batch: Batch | None = None
        self._next_version: NextVersion | None = None
        self._applied: Applied | None = None
        self._table = BlockTable.empty(context.chain.folder)
        self._checkpoint: Checkpoint | None = None
        self._created: CreatedModel | None = None
        self.base: tuple[Manifest, BlockTable] | None = None
        """The newest shipped version and its blocks, replaced together: any thread may read them."""
        self._offsets = Offsets(context.chain)
        self.restored = False
        """Whether the file had to be restored from the store when the model was taken over."""

    # --- taking over -------------------------------------------------------------------------------------------------

    @property
    def manifest(self) -> Manifest:
        """The newest manifest that this writer took as its base."""
        if self._manifest is None:
            raise OperatorError(Code.INTERNAL, "The model was not taken over yet.")
        return self._manifest

    @property
    def epoch(self) -> int:
        """The number of this writer's fence."""
        return self.manifest.epoch

    @property
    def applied_offset(self) -> int:
        """Sequence of the last request that is committed, or published without a file."""
        return committed_position(self._database).seq if self._database else self.manifest.offset

    @property
    def applied_position(self) -> LogPosition:
        """The same with its time: the position at which a reader of the log resumes."""
        return committed_position(self._database) if self._database else self.manifest.position

    def take_over(self, newest: Manifest | None) -> PreparedVersion | None:
        """Fence every other writer and open the file; return the capture of commits that a crash left unshipped.

        `newest` is the newest manifest, as the caller found it. Raises `fenced` if another writer was faster.
        """
        fence = fence_after(newest, self.chain, self._author)
        if self._manifest is None or newest is None or newest.write_id != self._manifest.write_id:
            self.failpoint("manager.take_over.before_fence")
            self.chain.create(fence)
            self.failpoint("manager.take_over.after_fence")
        else:  # a step after the fence failed, and no other writer came between: the fence is still valid
            fence = self._manifest
        self._manifest = fence
        if self._database is not None:  # a step after the fence failed: a file cannot be open twice
            self._database.close()
        self._invalidated = None
        self.ledger.load(fence)
        self._use_options(fence.options)
        if fence.file is not None:
            self._table = read_table(self.chain.store, fence.file)
        self.base = fence, self._table
        if fence.file is None:
            discard_files(self.folder)
            return None
        taken_over = take_file(self.chain, self.folder, fence, fence.epoch, self.limits)
        self.restored = taken_over.restored
        self._checkpoint = captured_checkpoint(taken_over.database, fence.file)
        self._use_database(taken_over.database)
        if not taken_over.unshipped:
            return None
        applied = recovered(taken_over.unshipped, fence, self.ledger, self.functions)
        with taken_over.database.transaction():
            adopt_commits(taken_over.database, fence.content_version, applied.version, applied.write_id)
        self._applied = applied  # the next batch is for the version after it, though it is not shipped yet
        return self.capture(applied, fence.announced_version)

    def _use_options(self, options: ModelOptions) -> None:
        self.limits = attrs.evolve(self._context.limits, **options.limits)

    def _use_database(self, database: Database) -> None:
        self._database, self._invalidated = database, None
        database.on_stuck = self._context.hooks.on_stuck
        self._model_file = ModelFile(
            database=database,
            handle=WriteHandle(database, self.limits),
            ledger=self.ledger,
            context=self.context,
            functions=self.functions,
            put_page=self._put_page,
            failpoint=self.failpoint,
        )

    @property
    def context(self) -> Context:
        """The services that functions may use."""
        history = StoredHistory(self.chain, self._database, self._unchanged_since) if self._database else None
        return Context(self.limits, self._context.sources, history, self._context.hooks.report)

    def _unchanged_since(self, manifest: Manifest) -> frozenset[str]:
        """Return the tables of a version that neither a later one changed nor the batch that is not shipped yet."""
        applied = self._applied
        pending = applied.changed_tables if applied and applied.version > self.manifest.version else frozenset()
        return unchanged_tables(manifest, self.manifest) - pending

    def _put_page(self, key: str, body: bytes) -> None:
        self.chain.store.put(self.chain.key(key), body)

    def close(self) -> None:
        """Close the file; the next writer ships what is committed and not shipped."""
        if self._database is not None:
            self._database.close()
        self.ledger.close()

    def read_at(self, offset: int, length: int) -> bytes | None:
        """Return bytes of the file on the disk, None if they cannot be read; called from any thread.

        They may belong to any version, or to none: the caller compares their hash.
        """
        database = self._database
        return None if database is None else database.read_if_there(offset, length)

    def leave(self) -> None:
        """Interrupt the running statement, and prevent further transactions; called from another thread."""
        if self._database is not None:
            self._database.leave()

    @contextmanager
    def _on_open_file(self) -> Iterator[None]:
        """Run the block on an open file; a database that DuckDB invalidated before is opened again first.

        Raises DamagedFileError if the file does not hold the commits that were made to it.
        """
        if self._invalidated is not None:
            self._reopen(self._invalidated)
        try:
            yield
        except InvalidatedError as e:
            self._invalidated = e
            raise
        except RetryError as e:
            if e.code is Code.OVER_LIMIT:  # a request that failed was refused, but its memory was not released
                self._invalidated = InvalidatedError(e.code, e.message)
            raise

    def _reopen(self, error: InvalidatedError) -> None:
        """Open the file again: the writer's fence is still valid, and the write-ahead log holds all commits."""
        if self._database is None:  # a file that `create_model` had begun; it is created again
            return
        self._database.close()
        path = self._database.path
        database = reopened(path, self.limits, error)
        try:
            self._adopt(read_commits(database), path)
        except BaseException:
            database.close()
            raise
        self._checkpoint = None  # every block in use is compared once
        self._use_database(database)
        if self._batch is not None and self._model_file is not None:
            self._batch.use(self._model_file)

    def _adopt(self, commits: Sequence[Commit], path: Path) -> None:
        """Take over the commits that the file holds: a COMMIT that failed may have reached the disk."""
        known = self._applied.offset if self._applied else self.manifest.offset
        if self._batch is not None and self._next_version is not None:
            self._batch.adopt([c for c in commits if c.write_id == self._next_version.write_id])
            known = max(known, self._batch.offset)
        if max((c.offset for c in commits), default=0) != known:
            raise DamagedFileError("The file does not hold the commits that were made to it.", where=str(path))

    def put_file_aside(self) -> None:
        """Close a damaged file and put it into quarantine: the next writer restores the newest version."""
        if self._database is not None:
            self._database.close()
            put_aside(self.folder, self._database.path)
            self._database = None

    # --- batches -----------------------------------------------------------------------------------------------------

    @property
    def state(self) -> ModelState:
        """The model's state after all that was applied."""
        if self._applied is not None and self._applied.dropped:
            return ModelState.DROPPED
        if self._database is not None:
            return ModelState.ACTIVE
        return self.manifest.state

    def apply(self, requests: Sequence[Request], outside: Sequence[Outcome] = ()) -> Applied:
        """Apply a batch; a request that creates or drops the model is passed alone.

        `outside` are the outcomes of requests before it that lie outside the model's incarnations: their ids are
        remembered with those of the batch.

        After a `RetryError`, call again with the requests beyond `applied_offset`: the batch resumes where it stopped.
        """
        with self._on_open_file():
            applied = self._apply(requests, outside)
        self._batch = None
        self._applied = applied
        self._give_memory_back(applied)
        return applied

    def _give_memory_back(self, applied: Applied) -> None:
        """Have the file opened again if a request that failed left memory allocated, as rolled-back updates do."""
        over_limit = any((e.outcome.error or {}).get("code") == Code.OVER_LIMIT for e in applied.entries)
        if over_limit and self._database is not None:
            self._invalidated = self._database.held_memory()

    def _apply(self, requests: Sequence[Request], outside: Sequence[Outcome]) -> Applied:
        if self._batch is None or self._next_version is None:
            self._next_version = self._prepare_next()
        if self._database is None or self._model_file is None:
            return self._apply_without_file(requests[0], outside_entries(outside, self.ledger))
        if self._batch is None:
            self._batch = Batch(self._model_file, self._next_version, self._last_effect_seq)
        return self._batch.apply(requests)

    def rest_of(self, batch: Sequence[Request]) -> Sequence[Request]:
        """Return the requests of a batch that are not committed after an error; an invalidated database is reopened."""
        with self._on_open_file():
            offset = self.applied_offset
            return [request for request in batch if request.seq > offset]

    def keep_dead_letter(self, request: Request, tries: int) -> None:
        """Keep a request that is to be set aside for inspection; may be called again after a `RetryError`."""
        self.failpoint("manager.set_aside.before_letter")
        keep_dead_letter(self.chain, request, tries)
        self.failpoint("manager.set_aside.after_letter")

    def set_aside(self, request: Request, error: TeatreeError) -> Applied:
        """Commit that a request had no effect, with its error."""
        with self._on_open_file():
            self._next_version = self._prepare_next()
            if self._model_file is None:
                applied = outcome_without_file(self._next_version, request, self.manifest, self.ledger, error)
            else:
                applied = Batch(self._model_file, self._next_version, self._last_effect_seq).refuse(request, error)
        self._applied = applied
        return applied

    @property
    def _last_effect_seq(self) -> int:
        return self._applied.last_effect_seq if self._applied else self.manifest.last_effect_seq

    def _prepare_next(self) -> NextVersion:
        newest = self._applied.version if self._applied else 0
        return NextVersion(
            version=max(newest, self.manifest.version) + 1,
            write_id=new_write_id(),
            shipped_version=self.manifest.content_version,
            offset_of=lambda version: self._offsets.find(version, self.manifest.version),
        )

    def _apply_without_file(self, request: Request, outside: tuple[Entry, ...]) -> Applied:
        next_version = self._next_version or self._prepare_next()
        earlier = self.ledger.find([request.request_id]).get(request.request_id)
        if earlier is not None:
            return outcome_without_file(
                next_version, request, self.manifest, self.ledger, earlier=earlier, outside=outside
            )
        path = self.folder.database(self.epoch)
        try:
            created = create_model_file(
                request,
                next_version,
                self.context,
                self.functions,
                path,
                self._author.stream,
                self.chain,
                self.ledger,
                self.failpoint,
                outside,
            )
        except (RequestError, RetryError) as e:
            if isinstance(e, RetryError) and e.code not in FAILED_CODES:
                raise
            discard_files(self.folder)
            return outcome_without_file(next_version, request, self.manifest, self.ledger, e, outside=outside)
        self._use_options(created.options)
        self._use_database(created.database)
        self._table, self._checkpoint, self._created = created.table, None, created
        return created.applied

    # --- versions ----------------------------------------------------------------------------------------------------

    def capture(self, applied: Applied, announced_version: int) -> PreparedVersion:
        """Checkpoint, and pack what the batch changed; the version before must be the base.

        May be called again after a `RetryError`.
        """
        with self._on_open_file():
            return self._capture(applied, announced_version)

    def _capture(self, applied: Applied, announced_version: int) -> PreparedVersion:
        self.failpoint("manager.capture.before_checkpoint")
        packed = None
        if self._database is not None and not applied.dropped:
            self._database.checkpoint()
            self.failpoint("manager.capture.after_checkpoint")
            packed = self._pack(self._database, applied)
        self.failpoint("manager.capture.after_pack")
        manifest = batch_after(
            self.manifest,
            applied,
            packed,
            table_entries(self._model_file.handle, self.manifest, applied) if packed and self._model_file else (),
            created=self._created,
            ledger=self.ledger.reference(applied.version),
            announced_version=announced_version,
            author=self._author,
        )
        return PreparedVersion(manifest, applied.entries, applied.segment, packed, applied.archive)

    def _pack(self, database: Database, applied: Applied) -> Capture:
        """Pack what differs from the version before; damage found here is the local file's."""
        table, since, spool = self._table, self._checkpoint, self.folder.spool
        with damage_of_file():
            return capture(database, table, since, applied.version, applied.write_id, self.chain.folder, spool)

    def ship(self, prepared: PreparedVersion) -> None:
        """Upload a version and create its manifest, the commit point. May be called again after a `RetryError`."""
        ship(prepared, self.chain, self.failpoint)

    def advance_base(self, prepared: PreparedVersion) -> None:
        """Take a shipped version as the base of the next."""
        manifest = prepared.manifest
        self._manifest = manifest
        self._offsets.remember(manifest)
        self.ledger.shipped(manifest.version)
        if prepared.capture is not None:
            self._table, self._checkpoint = prepared.capture.table, prepared.capture.checkpoint
        self.base = manifest, self._table
        if manifest.state is ModelState.DROPPED and self._database is not None:
            self._database.close()
            self._database = self._model_file = None
            discard_files(self.folder)
