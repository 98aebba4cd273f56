"""Outcomes, and notices: messages about outcomes, pages, progress and versions. Each is made here only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

from attrs import frozen

from teatree.contracts.formats.codec import dump_json, utc_text
from teatree.contracts.formats.provenance import AppCode, VersionRead
from teatree.contracts.formats.requests import HEADER_TRACEPARENT, Request
from teatree.contracts.names import ANONYMOUS

NoticeMessage = tuple[str, bytes, Mapping[str, str]]
"""Subject, body and headers."""


class Kind(StrEnum):
    """The last token of a notice's subject."""

    STARTED = "started"
    PROGRESS = "progress"
    PAGE = "page"
    DONE = "done"
    REJECTED = "rejected"
    FAILED = "failed"
    VERSION = "version"


class Status(StrEnum):
    """How a request ended; every accepted request ends in exactly one of these."""

    DONE = "done"
    REJECTED = "rejected"
    FAILED = "failed"


TERMINAL_KINDS = frozenset({Kind.DONE, Kind.REJECTED, Kind.FAILED})


@frozen
class Outcome:
    """How one request ended, as the outcome segment of its version stores it."""

    seq: int
    request_id: str
    function: str
    body_hash: bytes
    status: Status
    at: datetime
    """When JetStream accepted the request: the clock by which ids are remembered."""
    result: Any = None
    """Plain JSON value; for a query with pages see `pages`."""
    error: dict[str, Any] | None = None
    """`code`, `message`, `where`; for a fault of an app also `traceback`."""
    group: str | None = None
    pages: tuple[dict[str, Any], ...] = ()
    """Pages of a query's result: `ref` (object key), `rows`, `bytes`, `format`."""
    effect: bool = False
    """Whether it changed user tables: what `expected_version` checks."""
    tables: tuple[str, ...] = ()
    """The user tables that it wrote, sorted."""
    sender: str = ANONYMOUS
    traceparent: str | None = None
    index: int = 0
    """Its place among the requests of its message."""
    app: AppCode | None = None
    """The app that answered it; None for a built-in function."""
    reads: tuple[VersionRead, ...] = ()
    """Versions of other models that it read."""


def outcome_of(
    request: Request,
    status: Status,
    *,
    result: Any = None,
    error: dict[str, Any] | None = None,
    pages: tuple[dict[str, Any], ...] = (),
    effect: bool = False,
    tables: tuple[str, ...] = (),
    app: AppCode | None = None,
    reads: tuple[VersionRead, ...] = (),
) -> Outcome:
    """Return a request's outcome."""
    return Outcome(
        seq=request.seq,
        request_id=request.request_id,
        function=request.function,
        body_hash=request.body_hash,
        status=status,
        at=request.at,
        result=result,
        error=error,
        group=request.group,
        pages=pages,
        effect=effect,
        tables=tables,
        sender=request.sender,
        traceparent=request.traceparent,
        index=request.index,
        app=app,
        reads=reads,
    )


@frozen
class WireNotice:
    """One message on a notification subject."""

    kind: Kind
    model: str
    at: datetime
    """When its version was published: repeated notices are identical."""
    request_id: str | None = None
    function: str | None = None
    seq: int | None = None
    version: int | None = None
    result: Any = None
    error: dict[str, Any] | None = None
    page: dict[str, Any] | None = None
    """For kind `page`: `page` (from 1), `pages`, `rows` (JSON), `columns`, or `ref`; for `progress`: `fraction` (0 to
    1) and `text`."""
    index: int | None = None
    """The request's place in its message, if that holds several."""
    sender: str | None = None
    tables: Sequence[str] | None = None
    """The user tables that the request wrote."""
    app: AppCode | None = None
    reads: Sequence[VersionRead] | None = None

    def to_json(self) -> bytes:
        """Return the notice's JSON as DESIGN.md, section 4, names its members; absent ones are left out."""
        members: dict[str, Any] = {
            "kind": str(self.kind),
            "model": self.model,
            "request_id": self.request_id,
            "function": self.function,
            "seq": self.seq,
            "index": self.index,
            "sender": self.sender,
            "version": self.version,
            "result": self.result,
            "error": self.error,
            **(self.page or {}),
            "tables": self.tables,
            "app": self.app,
            "reads": self.reads,
            "at": utc_text(self.at),
        }
        return dump_json({k: v for k, v in members.items() if v is not None})


def notice_about(about: Request | Outcome, kind: Kind, model: str, at: datetime, **members: Any) -> WireNotice:
    """Return a notice about one request."""
    return WireNotice(
        kind=kind,
        model=model,
        at=at,
        request_id=about.request_id,
        function=about.function,
        seq=about.seq,
        index=about.index or None,
        sender=None if about.sender == ANONYMOUS else about.sender,
        **members,
    )


def notice_headers(about: Request | Outcome) -> dict[str, str]:
    """Return the headers of every notice about one request: its trace continues with its receiver."""
    return {HEADER_TRACEPARENT: about.traceparent} if about.traceparent else {}


@frozen
class GroupNotice:
    """One message for all requests of a group that one version holds, or for one that no version holds."""

    model: str
    group: str
    at: datetime
    applied: int
    already: int
    """Requests that were answered with their first outcome."""
    refusals: Sequence[Mapping[str, Any]]
    version: int | None = None
    seq: int | None = None
    """Distinguishes it where there is no version."""

    def to_json(self, ref: str | None = None) -> bytes:
        """Return the notice's JSON; with `ref`, the key of the object that holds the refusals instead of it."""
        members: dict[str, Any] = {
            "kind": str(Kind.DONE),
            "model": self.model,
            "group": self.group,
            "version": self.version,
            "seq": self.seq,
            "applied": self.applied,
            "already": self.already,
            "refused": len(self.refusals),
            "refusals": self.refusals if ref is None else [],
            "at": utc_text(self.at),
            "ref": ref,
        }
        return dump_json({k: v for k, v in members.items() if v is not None})


def group_refusal(request: Request | Outcome, outcome: Outcome) -> dict[str, Any]:
    """Return how a group's notice names a request that was not done; `outcome` is the first one of its id."""
    return {
        "request_id": request.request_id,
        "seq": request.seq,
        "status": str(outcome.status),
        "error": outcome.error,
    }
