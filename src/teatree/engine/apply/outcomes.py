"""Outcomes of requests, as a version's segment keeps them: done, refused, or a resend's."""

from __future__ import annotations

from collections.abc import Sequence

from teatree.contracts.errors import RequestError, TeatreeError
from teatree.contracts.notices import Outcome, Status, outcome_of
from teatree.contracts.requests import Request
from teatree.engine.apply.ledger import Ledger, LostOutcome
from teatree.functions.traits import Traits
from teatree.storage.ledger.segments import Entry, Role


def refusal(request: Request, error: TeatreeError, traits: Traits) -> Entry:
    """Return the outcome of a request that had no effect, with its error; `traits` are those of its function."""
    if error.where is None:
        error.where = traits.error_place
    return refused(request, error)


def refused(request: Request, error: TeatreeError) -> Entry:
    """Return the outcome of a request that had no effect, with its error as it is."""
    status = Status.REJECTED if isinstance(error, RequestError) else Status.FAILED
    return Entry(outcome_of(request, status, error=error.to_dict()))


def lost(request: Request, earlier: LostOutcome) -> Entry:
    """Return the outcome of a resend whose first outcome cannot be read."""
    return Entry(outcome_of(request, Status.FAILED, error=earlier.error.to_dict()), Role.REUSED)


def answer_again(first: Outcome, request: Request) -> Outcome:
    """Return the outcome of a resend: with its own sequence and group, and the first one's status."""
    return outcome_of(request, first.status, result={"seq": first.seq})


def outside_entries(outcomes: Sequence[Outcome], ledger: Ledger) -> tuple[Entry, ...]:
    """Return entries of outcomes outside incarnations: the first of each id that the ledger does not hold."""
    firsts = {outcome.request_id: outcome for outcome in reversed(outcomes)}
    known = ledger.find(list(firsts))
    return tuple(Entry(firsts[name], Role.OUTSIDE) for name in reversed(firsts) if name not in known)
