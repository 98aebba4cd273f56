"""Notices: messages about outcomes, pages, progress and versions."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from attrs import frozen

from teatree.contracts.codec import dump_json, utc_text


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
    """`code`, `message`, `where`."""
    group: str | None = None
    pages: tuple[dict[str, Any], ...] = ()
    """Pages of a query's result: `ref` (object key), `rows`, `bytes`, `format`."""
    effect: bool = False
    """Whether it changed user tables: what `expected_version` checks."""


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

    def to_json(self) -> bytes:
        """Return the notice's JSON as DESIGN.md, section 4, names its members; absent ones are left out."""
        members: dict[str, Any] = {
            "kind": str(self.kind),
            "model": self.model,
            "request_id": self.request_id,
            "function": self.function,
            "seq": self.seq,
            "version": self.version,
            "result": self.result,
            "error": self.error,
            **(self.page or {}),
            "at": utc_text(self.at),
        }
        return dump_json({k: v for k, v in members.items() if v is not None})
