"""Outcomes of requests outside the incarnations of their model, which the next incarnation remembers."""

from __future__ import annotations

from teatree.contracts.errors import Code, RequestError
from teatree.contracts.formats.notices import Kind, Outcome, Status, WireNotice, notice_about, outcome_of
from teatree.contracts.formats.requests import Request


def outside_error(request: Request) -> RequestError:
    """Return why a request outside an incarnation is rejected; it depends on the request alone."""
    return request.invalid or RequestError(
        Code.UNKNOWN_MODEL,
        f"There is no model {request.model!r} at this point of the log.",
        where="model",
        hint="Send `create_model` first.",
    )


def outside_outcome(request: Request) -> Outcome:
    """Return the outcome of a request outside an incarnation."""
    return outcome_of(request, Status.REJECTED, error=outside_error(request).to_dict())


def outside_notice(model: str, outcome: Outcome) -> WireNotice:
    """Return the notice of such an outcome; it depends neither on its publisher nor on the time."""
    return notice_about(outcome, Kind.REJECTED, model, outcome.at, error=outcome.error)
