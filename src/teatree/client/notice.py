"""A notice as its subscriber receives it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any

import orjson
from attrs import evolve, field, frozen

from teatree.contracts.errors import (
    APP_CODES,
    AppError,
    Code,
    OperatorError,
    Refused,
    RequestError,
    RetryError,
    TeatreeError,
    error_kind,
)
from teatree.contracts.formats.codec import parse_utc
from teatree.contracts.formats.notices import TERMINAL_KINDS, Kind
from teatree.contracts.formats.requests import (
    CONTENT_ARROW,
    HEADER_CONTENT_TYPE,
    HEADER_PAGE,
    HEADER_PAGES,
    HEADER_TRACEPARENT,
    HEADER_VERSION,
)
from teatree.contracts.names import ANONYMOUS

ReadObject = Callable[[str], Awaitable[bytes]]
"""Returns an object of the store by its key."""


@frozen
class Notice:
    """One message on a model's notification subjects."""

    kind: Kind
    model: str
    request_id: str | None = None
    """None for `version` and for a group's outcomes."""
    group: str | None = None
    function: str | None = None
    seq: int | None = None
    """Of the request in the log."""
    version: int | None = None
    result: Any = None
    error: dict[str, Any] | None = None
    """`code`, `message`, `where`."""
    at: datetime | None = None
    members: Mapping[str, Any] = field(factory=dict, repr=False)
    """All members of the JSON as it came: a page's rows, a group's counts."""
    body: bytes = field(default=b"", repr=False)
    """A page's rows as an Arrow stream, if they came so."""
    traceparent: str | None = None
    """The trace to which the request belongs."""

    @property
    def sender(self) -> str:
        """Who published the request; `_` if no one was named."""
        return str(self.members.get("sender", ANONYMOUS))

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables that the request wrote."""
        return tuple(self.members.get("tables", ()))

    @property
    def is_terminal(self) -> bool:
        """Whether it is the one outcome of one request."""
        return self.kind in TERMINAL_KINDS and self.group is None


def read_notice(subject: str, headers: Mapping[str, str], body: bytes) -> Notice:
    """Return the notice in a message; raises `corrupt` if it is not one."""
    tokens = subject.split(".")
    try:
        kind, model = Kind(tokens[-1]), tokens[2]
        traceparent = headers.get(HEADER_TRACEPARENT)
        group = tokens[4] if tokens[3] == "group" else None
        request_id = tokens[3] if group is None and kind is not Kind.VERSION else None
        if headers.get(HEADER_CONTENT_TYPE) == CONTENT_ARROW:
            version = int(headers[HEADER_VERSION]) if HEADER_VERSION in headers else None
            members = {"page": int(headers.get(HEADER_PAGE, 1)), "pages": int(headers.get(HEADER_PAGES, 1))}
            return Notice(
                kind, model, request_id, group, version=version, members=members, body=body, traceparent=traceparent
            )
        members = orjson.loads(body)
        at = members.get("at")
        return Notice(
            kind,
            model,
            request_id,
            group,
            function=members.get("function"),
            seq=members.get("seq"),
            version=members.get("version"),
            result=members.get("result"),
            error=members.get("error"),
            at=parse_utc(at) if at else None,
            members=members,
            traceparent=traceparent,
        )
    except (ValueError, IndexError, AttributeError) as e:
        raise OperatorError(Code.CORRUPT, f"This is not a notice: {e}.", where=subject) from None


async def whole_notice(notice: Notice, read_object: ReadObject) -> Notice:
    """Return a notice with the members that were too long for it, read from the object store.

    Pages and the notices of groups stay as they are: their readers fetch the reference.
    """
    ref = notice.members.get("ref")
    if not isinstance(ref, str) or notice.kind is Kind.PAGE or notice.group is not None:
        return notice
    members = orjson.loads(await read_object(ref))
    return evolve(notice, result=members.get("result"), error=members.get("error"), members=members)


def outcome_error(notice: Notice) -> TeatreeError:
    """Return the error that a `rejected` or `failed` notice carries."""
    return named_error(notice.error or {}, RequestError if notice.kind is Kind.REJECTED else RetryError)


def named_error(error: Mapping[str, Any], kind: type[TeatreeError] | None = None) -> TeatreeError:
    """Return an error from its `code`, `message` and `where`, of its code's class if no `kind` is given.

    An unknown code, of a newer release, becomes `internal`.
    """
    message = str(error.get("message") or "no reason was given")
    try:
        code = Code(error.get("code", ""))
    except ValueError:
        code, message = Code.INTERNAL, f"{error.get('code')}: {message}"
    if code in APP_CODES or "traceback" in error:
        return AppError(code, message, where=error.get("where"), traceback=error.get("traceback"))
    if code is Code.REFUSED:
        return Refused(message, where=error.get("where"))
    return (kind or error_kind(code))(code, message, where=error.get("where"))
