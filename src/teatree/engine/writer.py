"""The one writer of a model: takes it over, and leads it from state to state.

Concurrency: `take_over`, `apply`, `capture` and `advance_base` belong to one thread; versions may be shipped on another
while the next batch is applied. At most one captured version waits to be shipped: the next capture begins when it is.
The state is replaced as a whole, so any thread may read it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import attrs

from teatree.contracts.errors import Code, OperatorError, TeatreeError
from teatree.contracts.formats.manifest import Manifest, ModelState
from teatree.contracts.formats.notices import Outcome
from teatree.contracts.formats.requests import LogPosition, Request
from teatree.contracts.formats.steps import Steps
from teatree.contracts.settings import LimitSettings
from teatree.engine.apply.batch import Applied
from teatree.engine.apply.ledger import Ledger
from teatree.engine.closed_model import ClosedModel, NotTakenOver
from teatree.engine.incarnation import CreatedModel
from teatree.engine.model_context import ModelContext
from teatree.engine.model_without_data import ModelWithoutData
from teatree.engine.open_model import OpenModel
from teatree.engine.publish.prepared import Author, PreparedVersion, app_after, fence_after, options_after
from teatree.engine.publish.preparer import VersionPreparer
from teatree.engine.recovery import applied_through
from teatree.engine.takeover import discard_data, discard_temp, put_aside, take_data
from teatree.functions.app.loading import LoadedApp
from teatree.functions.registry import Registry


# More than ten public methods: each forwards to the model's state, so that callers need not know it.
class Writer:
    """Owns one model's data, ledger and end of the chain."""

    def __init__(self, context: ModelContext, author: Author) -> None:
        self.context = context
        self.ledger = Ledger(context.chain, context.folder.ledger, context.limits)
        self.model: NotTakenOver | ClosedModel | ModelWithoutData | OpenModel = NotTakenOver()
        """The model in its present state."""
        self.restored = False
        """Whether the data had to be restored from the store when the model was taken over."""
        self._author = author

    @property
    def manifest(self) -> Manifest:
        """The newest manifest that this writer took as its base."""
        match self.model:
            case NotTakenOver():
                raise OperatorError(Code.INTERNAL, "The model was not taken over yet.")
            case ClosedModel() as closed:
                return closed.manifest
            case ModelWithoutData() | OpenModel() as model:
                return model.preparer.base

    @property
    def state(self) -> ModelState:
        """The model's state after all that was applied."""
        model = self.model
        return model.state if isinstance(model, ModelWithoutData | OpenModel) else self.manifest.state

    @property
    def limits(self) -> LimitSettings:
        """The limits of the model while it has data, else the operator's."""
        model = self.model
        return model.limits if isinstance(model, OpenModel) else self.context.limits

    @property
    def functions(self) -> Registry:
        """The functions that requests can call: those of the model's app too while it has data."""
        model = self.model
        return model.functions if isinstance(model, OpenModel) else self.context.functions

    @property
    def app(self) -> LoadedApp | None:
        """The app that this process has loaded for the model."""
        model = self.model
        return model.app if isinstance(model, OpenModel) else None

    @property
    def is_outdated(self) -> bool:
        """Whether a request has changed the model's app: a process can import only one, so another writer continues."""
        model = self.model
        return isinstance(model, OpenModel) and model.is_outdated

    @property
    def applied_position(self) -> LogPosition:
        """The position of the last request that is committed, or published without data: the log is read from it."""
        return self._taken_over.position

    @property
    def _taken_over(self) -> ModelWithoutData | OpenModel:
        model = self.model
        if not isinstance(model, ModelWithoutData | OpenModel):
            raise OperatorError(Code.INTERNAL, "The model is not open for writing.")
        return model

    def take_over(self, newest: Manifest | None) -> PreparedVersion | None:
        """Fence every other writer and open the data; return the capture of commits that a crash left unshipped.

        `newest` is the newest manifest, as the caller found it. Raises `fenced` if another writer was faster. After a
        `RetryError` it is called again, with the newest manifest of that time.
        """
        fence = self._fence(newest)
        if isinstance(self.model, OpenModel):  # a step after the fence failed: data cannot be open twice
            self.model.data.close()
        self.model = ClosedModel(fence)
        discard_temp(self.context.folder)
        probe = self.context.probe
        with probe.step("manager.take_over.ledger", version=fence.version):
            self.ledger.load(fence)
        applied = applied_through(fence)
        preparer = VersionPreparer(self.context, self._author, self.ledger, fence)
        if fence.state is not ModelState.ACTIVE:
            discard_data(self.context.folder)
            self.model = ModelWithoutData(self.context, preparer, applied)
            return None
        context = self.context.with_options(fence.options)
        with probe.step("manager.take_over.file", version=fence.version):
            taken_over = take_data(context, fence)
        self.restored = taken_over.restored
        model = self.model = OpenModel(context, preparer, taken_over.data, applied)
        if taken_over.unshipped:
            applied = model.recover(taken_over.unshipped)
        name = options_after(applied, fence).app
        with probe.step("manager.take_over.app", app=name):
            model.use(context.with_app(name, app_after(applied, fence)))
        return model.capture(applied, fence.announced_version) if taken_over.unshipped else None

    def _fence(self, newest: Manifest | None) -> Manifest:
        """Return the fence of this writer, created unless an earlier try has left it as the newest manifest."""
        if not isinstance(self.model, NotTakenOver) and newest is not None:
            own = self.manifest
            if newest.write_id == own.write_id:  # a step after it failed, and no other writer came between
                return own
        fence = fence_after(newest, self.context.chain, self._author, self.context.clock.now())
        with self.context.probe.step("manager.take_over.fence", version=fence.version):
            self.context.chain.create(fence)
        return fence

    def apply(self, requests: Sequence[Request], outside: Sequence[Outcome] = ()) -> Applied:
        """Apply a batch; a request that creates or drops the model is passed alone.

        `outside` are the outcomes of requests before it that lie outside the model's incarnations: their ids are
        remembered with those of the batch.

        After a `RetryError`, call again with what `rest_of` returns: the batch resumes where it stopped.
        """
        steps = Steps.begin(self.context.clock)
        applied = self._apply(requests, outside)
        return attrs.evolve(applied, steps=steps.then("apply"))

    def _apply(self, requests: Sequence[Request], outside: Sequence[Outcome]) -> Applied:
        model = self._taken_over
        if isinstance(model, OpenModel):
            return model.apply(requests)
        result = model.apply(requests[0], outside)
        if isinstance(result, CreatedModel):
            context = self.context.with_options(result.options)
            opened = self.model = OpenModel(context, model.preparer, result.data, result.applied)
            opened.use(context.with_app(result.options.app, None))
            return result.applied
        return result

    def rest_of(self, batch: Sequence[Request]) -> Sequence[Request]:
        """Return the requests of a batch that are not committed after an error; invalidated data are reopened."""
        return self._taken_over.rest_of(batch)

    def set_aside(self, request: Request, error: TeatreeError) -> Applied:
        """Commit that a request had no effect, with its error."""
        return self._taken_over.set_aside(request, error)

    def capture(self, applied: Applied, announced_version: int) -> PreparedVersion:
        """Capture what the batch changed; the version before must be the base.

        May be called again after a `RetryError`.
        """
        return self._taken_over.capture(applied, announced_version)

    def advance_base(self, prepared: PreparedVersion) -> None:
        """Take a shipped version as the base of the next; data that it dropped are deleted."""
        model = self._taken_over
        model.preparer.advance(prepared)
        if isinstance(model, OpenModel):
            if prepared.captured is not None:
                model.shipped(prepared.captured)
            if prepared.manifest.state is ModelState.DROPPED:
                self.model = ModelWithoutData(self.context, model.preparer, applied_through(prepared.manifest))
                model.data.close()
                discard_data(self.context.folder)

    def restore(self, manifest: Manifest, place: Path) -> None:
        """Write a version to a place, preferring what is at hand over the store; called from any thread."""
        model = self.model
        if isinstance(model, OpenModel):
            model.data.restore(manifest, place)
        else:
            self.context.engines.require(manifest.options.engine).restore(self.context.chain, manifest, place)

    def leave(self) -> None:
        """Interrupt the running statement, and prevent further transactions; called from another thread."""
        model = self.model
        if isinstance(model, OpenModel):
            model.data.connection.leave()

    def close(self) -> None:
        """Close the data; the next writer ships what is committed and not shipped."""
        if isinstance(self.model, OpenModel):
            self.model.data.close()
        if self.context.others is not None:
            self.context.others.close()
        self.ledger.close()

    def put_data_aside(self) -> None:
        """Close damaged data and put them into quarantine: the next writer restores the newest version."""
        if isinstance(self.model, OpenModel):
            self.model.data.close()
            put_aside(self.context.folder, self.manifest.epoch, self.context.clock.now())
            self.model = ClosedModel(self.manifest)
