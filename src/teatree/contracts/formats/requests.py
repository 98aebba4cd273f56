"""`Request`: one message of the log, its envelope parsed, but not yet its arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache
from operator import methodcaller
from typing import TypeVar

from attrs import field, frozen
from blake3 import blake3

from teatree.contracts.errors import Code, RequestError
from teatree.contracts.formats.traceparent import read_traceparent
from teatree.contracts.names import (
    ANONYMOUS,
    check_function,
    check_group_id,
    check_model,
    check_request_id,
    check_sender,
    sequence_id,
)

T = TypeVar("T")
HEADER_REQUEST_ID = "Teatree-Request-Id"
HEADER_NATS_ID = "Nats-Msg-Id"
HEADER_GROUP = "Teatree-Group"
HEADER_ARGS = "Teatree-Args"
HEADER_CONTENT_TYPE = "Content-Type"
HEADER_TRACEPARENT = "traceparent"
HEADER_REPEAT_MS = "Teatree-Repeat-Ms"
"""In a direct read: the client repeats it at this interval while it waits."""
HEADERS = (
    HEADER_REQUEST_ID,
    HEADER_NATS_ID,
    HEADER_GROUP,
    HEADER_ARGS,
    HEADER_CONTENT_TYPE,
    HEADER_TRACEPARENT,
    HEADER_REPEAT_MS,
)
"""All headers of a request; their names are case-insensitive, and each may occur once."""
_BREAK = methodcaller("__contains__", "\n")
HEADER_VERSION = "Teatree-Version"
"""In a dispatcher's replies: its version. In notices and replies of a model: the version that answers."""
HEADER_PAGE = "Teatree-Page"
HEADER_PAGES = "Teatree-Pages"
HEADER_ROWS = "Teatree-Rows"
HEADER_REFS = "Teatree-Refs"
"""In a reply: the pages after the first, as JSON."""
HEALTH_FUNCTION = "health"
"""On a query subject: answers with the state of the manager."""
FUNCTIONS_FUNCTION = "functions"
"""On a query subject: answers with the functions of the model's app."""
CANCEL_FUNCTION = "cancel"
"""On a query subject, with a read's id: cancels the read, whose client waits no longer. It gets no reply."""
CONTENT_JSON = "application/json"
CONTENT_ARROW = "application/vnd.apache.arrow.stream"
ARGS_HEADER_BYTES_MAX = 32_768
"""Bytes of `Teatree-Args`: NATS takes 64 KiB of headers in all."""


@frozen
class LogPosition:
    """A message's place in the log: a sequence alone can be assigned again after the log was truncated."""

    seq: int
    at: datetime
    """When JetStream stored it."""


@frozen
class Request:
    """One message of the log, addressed to one function of one model."""

    model: str
    function: str
    seq: int
    """Sequence number in the log, which orders all requests."""
    at: datetime
    """When JetStream accepted it; all history is measured by this clock."""
    request_id: str
    body: bytes = field(repr=False, default=b"")
    content_type: str = CONTENT_JSON
    args: str | None = field(repr=False, default=None)
    """The header `Teatree-Args`: the arguments beside an Arrow body, one line of ASCII JSON."""
    group: str | None = None
    traceparent: str | None = None
    """The trace that it belongs to (W3C); None too for a header that is not valid: a trace never refuses a request."""
    sender: str = ANONYMOUS
    """Who sent it, by its subject, which NATS' permissions make true; `_` if it names none, or none that is valid."""
    index: int = 0
    """Its place among the requests of its message: with `seq` it identifies the request in the log."""
    invalid: RequestError | None = field(default=None, eq=False)
    """What is wrong with the envelope itself; such a request is rejected with it when its turn comes."""

    @property
    def position(self) -> LogPosition:
        """Its place in the log."""
        return LogPosition(self.seq, self.at)

    @property
    def body_hash(self) -> bytes:
        """16 bytes that distinguish two requests under one id.

        The beginning of blake3 over function, content type, arguments and body.
        """
        head = _hashed_head(self.function, self.content_type)
        args = self.args.encode() if self.args else b""
        return blake3(b"%b%b\0%b" % (head, args, self.body)).digest(length=16)


@lru_cache(maxsize=1024)
def _hashed_head(function: str, content_type: str) -> bytes:
    """Return what is hashed first; thousands of neighbours in the log have the same."""
    return f"{function}\0{content_type}\0".encode()


def read_request(
    model: str,
    function: str,
    seq: int,
    at: datetime,
    headers: Mapping[str, str],
    body: bytes,
    sender: str = ANONYMOUS,
) -> Request:
    """Return the request that a message carries; a fault of its envelope is kept in `invalid`, never raised.

    The id is `Teatree-Request-Id`, else `Nats-Msg-Id`, else `seq-<seq>`; an id that cannot be used is replaced by the
    last.
    """
    faults: list[RequestError] = []
    if any(map(_BREAK, headers.values())):
        faults = [_repeated(name) for name, value in headers.items() if "\n" in value and name in HEADERS]
        headers = {name: value for name, value in headers.items() if "\n" not in value}
    raw_id = headers.get(HEADER_REQUEST_ID, headers.get(HEADER_NATS_ID))  # an empty one is rejected
    raw_type = headers.get(HEADER_CONTENT_TYPE)
    content_type = raw_type.split(";")[0].strip().lower() if raw_type else CONTENT_JSON
    args = headers.get(HEADER_ARGS)
    group = headers.get(HEADER_GROUP) or None
    if not _are_names(model, function, sender, group):
        _checked(check_model, model, None, faults)
        _checked(check_function, function, None, faults)
        sender = _checked(check_sender, sender, ANONYMOUS, faults)
        group = _checked(check_group_id, group, None, faults)
    request_id = _checked(check_request_id, raw_id, None, faults) or sequence_id(seq)
    if raw_type or args is not None:
        faults += _body_faults(content_type, args)
    return Request(
        model=model,
        function=function,
        seq=seq,
        at=at,
        request_id=request_id,
        body=body,
        content_type=content_type,
        args=args,
        group=group,
        traceparent=read_traceparent(headers.get(HEADER_TRACEPARENT)),
        sender=sender,
        invalid=faults[0] if faults else None,
    )


@lru_cache(maxsize=1024)
def _are_names(model: str, function: str, sender: str, group: str | None) -> bool:
    """Return whether all are valid; thousands of neighbours in the log have the same ones."""
    faults: list[RequestError] = []
    for check, name in (
        (check_model, model),
        (check_function, function),
        (check_sender, sender),
        (check_group_id, group),
    ):
        _checked(check, name, None, faults)
    return not faults


def _checked(check: Callable[[str], object], value: str | None, fallback: T, faults: list[RequestError]) -> str | T:
    """Return a value that passes its check; the fallback for one that is missing, or that becomes a fault."""
    if value is None:
        return fallback
    try:
        check(value)
    except RequestError as e:
        faults.append(e)
        return fallback
    return value


def _body_faults(content_type: str, args: str | None) -> list[RequestError]:
    """Return what is wrong with the headers that describe the body."""
    faults: list[RequestError] = []
    if content_type not in (CONTENT_JSON, CONTENT_ARROW):
        faults.append(
            RequestError(
                Code.BAD_CONTENT_TYPE,
                f"The content type {content_type[:80]!r} is not known.",
                where=HEADER_CONTENT_TYPE,
                hint=f"Use {CONTENT_JSON} or {CONTENT_ARROW}.",
            )
        )
    if args is not None and (len(args) > ARGS_HEADER_BYTES_MAX or not args.isascii()):
        faults.append(
            RequestError(
                Code.BAD_HEADER,
                f"{HEADER_ARGS} must be ASCII JSON of at most {ARGS_HEADER_BYTES_MAX} bytes.",
                where=HEADER_ARGS,
            )
        )
    return faults


def _repeated(name: str) -> RequestError:
    return RequestError(
        Code.BAD_HEADER,
        f"The header {name} is given more than once, or has a line break.",
        where=name,
        hint="Give it once; upper and lower case are the same.",
    )
