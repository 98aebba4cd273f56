"""Outcomes of requests, as a version's segment keeps them: done, refused, or a resend's."""

from __future__ import annotations

from collections.abc import Sequence

from teatree.contracts.errors import Code, RequestError, TeatreeError
from teatree.contracts.formats.notices import Outcome, Status, outcome_of
from teatree.contracts.formats.provenance import AppCode
from teatree.contracts.formats.requests import Request
from teatree.engine.apply.ledger import Ledger, LostOutcome
from teatree.functions.traits import Traits
from teatree.storage.ledger.segments import Entry, Role


def refusal(request: Request, error: TeatreeError, traits: Traits) -> Entry:
    """Return the outcome of a request that had no effect, with its error; `traits` are those of its function."""
    if error.where is None:
        error.where = traits.error_place
    return refused(request, error, traits.app)


def refused(request: Request, error: TeatreeError, app: AppCode | None = None) -> Entry:
    """Return the outcome of a request that had no effect, with its error as it is; `app` has its function."""
    status = Status.REJECTED if isinstance(error, RequestError) else Status.FAILED
    return Entry(outcome_of(request, status, error=error.to_dict(), app=app))


def lost(request: Request, earlier: LostOutcome) -> Entry:
    """Return the outcome of a resend whose first outcome cannot be read."""
    return Entry(outcome_of(request, Status.FAILED, error=earlier.error.to_dict()), Role.REUSED)


def repeated(request: Request, first: Outcome, version: int | None) -> Entry:
    """Return the outcome of a request under a used id: as the first's for the same body, else refused.

    `version` holds the first's outcome; None if that is the version which is being prepared.
    """
    if first.body_hash == request.body_hash:
        return Entry(outcome_of(request, first.status, result={"seq": first.seq}), Role.AGAIN, version)
    error = RequestError(
        Code.REQUEST_ID_REUSED,
        f"The id {request.request_id!r} belongs to another request, number {first.seq} of the log.",
        where="Teatree-Request-Id",
        hint="Send this one under a new id.",
    )
    return Entry(outcome_of(request, Status.REJECTED, error=error.to_dict()), Role.REUSED)


def outside_entries(outcomes: Sequence[Outcome], ledger: Ledger) -> tuple[Entry, ...]:
    """Return entries of outcomes outside incarnations: the first of each id that the ledger does not hold."""
    firsts = {outcome.request_id: outcome for outcome in reversed(outcomes)}
    known = ledger.find(list(firsts))
    return tuple(Entry(firsts[name], Role.OUTSIDE) for name in reversed(firsts) if name not in known)
