"""Receipts: what sending a request, or many, returns."""

from __future__ import annotations

from typing import Any

from attrs import frozen


@frozen
class Receipt:
    """A request that was accepted: it is on disk, in the log's order, and will have exactly one outcome."""

    model: str
    function: str
    request_id: str
    seq: int
    """Its sequence in the log."""
    version: int | None = None
    """The version that holds its effect; None if the sender waited for `accepted` only."""
    result: Any = None
    """What the function returned; for rows, their number."""
    tables: tuple[str, ...] = ()
    """The tables that it wrote."""

    @property
    def is_done(self) -> bool:
        """Whether its outcome was waited for; only `done` returns, the others raise."""
        return self.version is not None


@frozen
class Refusal:
    """One request of a group that was rejected or failed."""

    request_id: str
    seq: int
    status: str
    error: dict[str, Any]
    """`code`, `message`, `where`."""


@frozen
class Summary:
    """The outcomes of a group of requests."""

    model: str
    groups: tuple[str, ...]
    """The group id; more than one if a batch had to be sent again without knowing whether it had arrived."""
    sent: int
    accepted_seq: int
    """Sequence in the log of the last request; 0 if none was sent."""
    waited: bool
    """Whether the outcomes below were waited for."""
    applied: int = 0
    already: int = 0
    """Requests whose id already had an outcome."""
    refused: int = 0
    refusals: tuple[Refusal, ...] = ()
    """The refused ones with their reasons, up to `REFUSALS_MAX` of them."""
    version: int | None = None
    """The version that holds the last of them."""


REFUSALS_MAX = 10_000
"""Reasons kept in a summary: a limit, so that a million wrong rows do not fill the sender's memory."""
