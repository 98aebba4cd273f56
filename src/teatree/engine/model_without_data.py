"""A model without data: before its `create_model`, or after its `drop_model`."""

from __future__ import annotations

from collections.abc import Sequence

from teatree.contracts.errors import RequestError, RetryError, TeatreeError
from teatree.contracts.formats.manifest import ModelState
from teatree.contracts.formats.notices import Outcome
from teatree.contracts.formats.requests import LogPosition, Request
from teatree.engine.apply.batch import FAILED_CODES, Applied
from teatree.engine.apply.ledger import EarlierOutcome, LostOutcome
from teatree.engine.apply.outcomes import lost, outside_entries, refused, repeated
from teatree.engine.apply.transaction import NextVersion
from teatree.engine.incarnation import CreatedModel, create_data
from teatree.engine.model_context import ModelContext
from teatree.engine.publish.prepared import PreparedVersion
from teatree.engine.publish.preparer import VersionPreparer
from teatree.engine.takeover import discard_data
from teatree.storage.ledger.segments import Entry, encode_segment


class ModelWithoutData:
    """Answers requests that change nothing, and creates the model. One thread uses it.

    It has the operator's limits: those of an earlier incarnation do not bind the next.
    """

    def __init__(self, context: ModelContext, preparer: VersionPreparer, newest: Applied) -> None:
        """`newest` is the batch that was applied last."""
        self.preparer = preparer
        self._context = context
        self._newest = newest

    @property
    def state(self) -> ModelState:
        """Absent or dropped."""
        return ModelState.DROPPED if self._newest.dropped else self.preparer.base.state

    @property
    def position(self) -> LogPosition:
        """The position of the last request that is published: nothing else keeps it."""
        return self.preparer.base.position

    def apply(self, request: Request, outside: Sequence[Outcome]) -> Applied | CreatedModel:
        """Apply a `create_model`; return the created model, or a batch without effect if it is refused or a resend.

        The outcomes in `outside` are kept with its outcome.
        """
        ledger = self.preparer.ledger
        next_version = self.preparer.next_version(self._newest)
        entries = outside_entries(outside, ledger)
        earlier = ledger.find([request.request_id]).get(request.request_id)
        if earlier is not None:
            return self._without_effect(next_version, request, (*entries, _resend(request, earlier)))
        try:
            created = create_data(self._context, self.preparer, request, next_version, outside=entries)
        except (RequestError, RetryError) as e:
            if isinstance(e, RetryError) and e.code not in FAILED_CODES:
                raise
            discard_data(self._context.folder)
            return self._without_effect(next_version, request, (*entries, refused(request, e)))
        ledger.add(next_version.version, created.applied.entries)
        return created

    def set_aside(self, request: Request, error: TeatreeError) -> Applied:
        """Keep that a request had no effect, with its error."""
        return self._without_effect(self.preparer.next_version(self._newest), request, (refused(request, error),))

    def rest_of(self, batch: Sequence[Request]) -> Sequence[Request]:
        """Return the requests of a batch that have no published outcome."""
        return [request for request in batch if request.seq > self.position.seq]

    def capture(self, applied: Applied, announced_version: int) -> PreparedVersion:
        """Prepare the version of a batch that changed nothing."""
        with self._context.probe.step("manager.capture", version=applied.version):
            return self.preparer.prepare(applied, None, announced_version)

    def _without_effect(self, next_version: NextVersion, request: Request, entries: tuple[Entry, ...]) -> Applied:
        self.preparer.ledger.add(next_version.version, entries)
        self._newest = Applied(
            version=next_version.version,
            write_id=next_version.write_id,
            offset=request.seq,
            log_at=request.at,
            last_effect_seq=self.preparer.base.last_effect_seq,
            entries=entries,
            segment=encode_segment(entries),
            changed_tables=frozenset(),
        )
        return self._newest


def _resend(request: Request, earlier: EarlierOutcome | LostOutcome) -> Entry:
    if isinstance(earlier, LostOutcome):
        return lost(request, earlier)
    return repeated(request, earlier.entry.outcome, earlier.version)
