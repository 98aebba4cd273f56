"""An open model: its read-write data, and the batch that is being applied to them.

Concurrency: one thread uses it; any may take its `data`, for what `ModelData` allows other threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import attrs

from teatree.contracts.errors import Code, RetryError, TeatreeError
from teatree.contracts.formats.manifest import Manifest, ModelState
from teatree.contracts.formats.requests import LogPosition, Request
from teatree.engine.apply.batch import Applied, Batch
from teatree.engine.apply.transaction import BatchContext
from teatree.engine.base import Captured, ModelData
from teatree.engine.commits import Commit
from teatree.engine.errors import DamagedFileError, InvalidatedError
from teatree.engine.model_context import ModelContext
from teatree.engine.publish.prepared import CapturedData, PreparedVersion, table_entries
from teatree.engine.publish.preparer import VersionPreparer
from teatree.engine.recovery import recovered
from teatree.functions.app.loading import LoadedApp
from teatree.functions.registry import Registry


# More than ten public methods: those of the writer, which forwards to it.
class OpenModel:
    """Applies batches to a model's data and captures versions of them.

    A `RetryError` leaves what was committed: the call is repeated with the requests that `rest_of` returns. Raises
    DamagedFileError if the data do not hold the commits that were made to them.
    """

    def __init__(self, context: ModelContext, preparer: VersionPreparer, data: ModelData, newest: Applied) -> None:
        """`context` has the model's own limits; `newest` is the batch that was applied last."""
        self.limits = context.limits
        self.is_outdated = False
        """Whether a request has changed the model's app since these functions were loaded."""
        self.preparer = preparer
        self._context = context
        self._newest = newest
        self._batch: Batch | None = None
        """The batch that an error has stopped, to be resumed."""
        self._data = data
        self._batch_context: BatchContext | InvalidatedError = self._use(data)
        """Why the data are opened again before their next use, if they are."""

    @property
    def data(self) -> ModelData:
        """The data that were opened last."""
        return self._data

    @property
    def state(self) -> ModelState:
        """Active, or dropped by a batch that is not shipped yet."""
        return ModelState.DROPPED if self._newest.dropped else ModelState.ACTIVE

    @property
    def position(self) -> LogPosition:
        """The position of the last request that is committed."""
        return self._data.commits()[-1].position

    def recover(self, unshipped: Sequence[Commit]) -> Applied:
        """Take over commits that a crash left unshipped, as one batch."""
        base = self.preparer.base
        applied = recovered(unshipped, base, self.preparer.ledger, self._context.functions)
        self._data.adopt(base.content_version, applied.version, applied.write_id)
        self._newest = applied
        return applied

    def use(self, context: ModelContext) -> None:
        """Run requests with the functions of `context`."""
        self._context = context
        self._batch_context = self._use(self._data)

    @property
    def functions(self) -> Registry:
        """The functions that requests can call."""
        return self._context.functions

    @property
    def app(self) -> LoadedApp | None:
        """The app that was loaded for it."""
        return self._context.app

    def apply(self, requests: Sequence[Request]) -> Applied:
        """Apply a batch; after an error it resumes where it stopped."""
        with self._working() as batch_context:
            if self._batch is None:
                self._batch = self._new_batch(batch_context)
            applied = self._batch.apply(requests)
        self._batch, self._newest = None, applied
        self.is_outdated = self.is_outdated or applied.app_change is not None
        self._reopen_if_exhausted(applied)
        return applied

    def set_aside(self, request: Request, error: TeatreeError) -> Applied:
        """Commit that a request had no effect, with its error."""
        with self._working() as batch_context:
            self._newest = self._new_batch(batch_context).refuse(request, error)
        return self._newest

    def rest_of(self, batch: Sequence[Request]) -> Sequence[Request]:
        """Return the requests of a batch that are not committed after an error."""
        with self._working():
            offset = self.position.seq
            return [request for request in batch if request.seq > offset]

    def capture(self, applied: Applied, announced_version: int) -> PreparedVersion:
        """Capture what the batch changed; the version before must be the base."""
        with self._working() as batch_context, self._context.probe.step("manager.capture", version=applied.version):
            applied = attrs.evolve(applied, steps=applied.steps.then("wait"))
            data = None if applied.dropped else self._capture(batch_context, applied)
            return self.preparer.prepare(applied, data, announced_version)

    def shipped(self, captured: Captured) -> None:
        """Compare the next capture with one that was shipped."""
        self._data.shipped(captured)

    # --- the data ----------------------------------------------------------------------------------------------------

    def _use(self, data: ModelData) -> BatchContext:
        return BatchContext(
            connection=data.connection,
            ledger=self.preparer.ledger,
            call_context=self._context.for_functions(data.history(self._unchanged_since)),
            functions=self._context.functions,
            put_page=self._put_page,
            during=self._context.hooks.during,
            probe=self._context.probe,
        )

    def _unchanged_since(self, manifest: Manifest) -> frozenset[str]:
        """Return the tables of a version that neither a later one changed nor the batch that is not shipped yet."""
        base = self.preparer.base
        pending = self._newest.changed_tables if self._newest.version > base.version else frozenset()
        now = {entry.name: entry.changed_in for entry in base.tables}
        unchanged = (e.name for e in manifest.tables if e.changed_in and e.changed_in == now.get(e.name))
        return frozenset(unchanged) - pending

    def _put_page(self, key: str, body: bytes) -> None:
        chain = self._context.chain
        chain.store.put(chain.key(key), body)

    @contextmanager
    def _working(self) -> Iterator[BatchContext]:
        """Run the block on data that work; note an error after which they must be opened again."""
        found = self._batch_context
        batch_context = self._reopen(found) if isinstance(found, InvalidatedError) else found
        try:
            yield batch_context
        except InvalidatedError as e:
            self._batch_context = e
            raise
        except RetryError as e:
            if e.code is Code.OVER_LIMIT:  # a request that failed was refused, but its memory was not released
                self._batch_context = InvalidatedError(e.code, e.message)
            raise

    def _reopen(self, error: InvalidatedError) -> BatchContext:
        """Open the data again: the writer's fence is still valid, and they hold all commits."""
        data = self._data.reopened(error)
        try:
            self._adopt(data)
        except BaseException:
            data.close()
            raise
        self._data = data
        self._batch_context = batch_context = self._use(data)
        if self._batch is not None:
            self._batch.use(batch_context)
        return batch_context

    def _adopt(self, data: ModelData) -> None:
        """Take over the commits that the data hold: one that failed may have taken effect."""
        commits, known = data.commits(), self._newest.offset
        if self._batch is not None:
            self._batch.adopt(commits)
            known = max(known, self._batch.offset)
        if max((c.offset for c in commits), default=0) != known:
            where = str(self._context.folder.read_write)
            raise DamagedFileError("The data do not hold the commits that were made to them.", where=where)

    def _reopen_if_exhausted(self, applied: Applied) -> None:
        """Have the data opened again if a request that failed left memory allocated."""
        if any((e.outcome.error or {}).get("code") == Code.OVER_LIMIT for e in applied.entries):
            error = self._data.exhausted()
            if error is not None:
                self._batch_context = error

    def _new_batch(self, batch_context: BatchContext) -> Batch:
        return Batch(batch_context, self.preparer.next_version(self._newest), self._newest.last_effect_seq)

    def _capture(self, batch_context: BatchContext, applied: Applied) -> CapturedData:
        captured = self._data.capture(applied.version, applied.write_id, applied.steps)
        tables = table_entries(batch_context.connection.handle, self.preparer.base, applied)
        return CapturedData(captured, tables, captured.steps.then("capture.pack"))
