"""The rejecter of requests outside a model's incarnations, which no manager answers.

The log alone decides which ones these are: beyond the offset of a version without a model, every request before the
next `create_model` is outside. So a rejection is final however old that version is, two dispatchers publish the same
one, and publishing it again is harmless.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from teatree.contracts.errors import RequestError
from teatree.contracts.formats.notices import (
    GroupNotice,
    Kind,
    NoticeMessage,
    Outcome,
    Status,
    group_refusal,
    notice_headers,
)
from teatree.contracts.formats.outside import outside_notice, outside_outcome
from teatree.contracts.formats.requests import CONTENT_JSON, HEADER_CONTENT_TYPE, Request
from teatree.functions.registry import Registry
from teatree.functions.traits import Nature
from teatree.messaging.bus import Bus
from teatree.messaging.log import LogReader
from teatree.messaging.notices import NoticeWriter
from teatree.messaging.subjects import Subjects
from teatree_dispatcher.earlier_outcomes import EarlierOutcomes, PublishedOutcome

READ_REQUESTS_MAX = 1_000
READ_BYTES_MAX = 8_000_000


@frozen
class Rejection:
    """How far requests were answered."""

    rejected_through: int
    create_seq: int
    """The next `create_model`, 0 if none was found: a manager applies it and what follows."""
    rejected: int
    is_complete: bool
    """Whether the end of the log, or a `create_model`, was reached."""


class Rejecter:
    """Rejects requests to models that do not exist."""

    def __init__(self, bus: Bus, earlier: EarlierOutcomes, functions: Registry) -> None:
        """`earlier` finds the outcomes of a model's ended incarnations."""
        self._earlier = earlier
        self._functions = functions
        self._bus = bus
        self._notices = NoticeWriter(bus)
        self._probe = bus.probe

    async def reject(self, model: str, after: int, name_error: RequestError | None) -> Rejection:
        """Reject a model's requests beyond `after` that lie outside its incarnations, up to a thousand of them.

        `name_error` is why the name can never be a model's: then a `create_model` is rejected too.
        """
        read = await LogReader(self._bus, model).read(after, requests_max=READ_REQUESTS_MAX, bytes_max=READ_BYTES_MAX)
        outside: list[Request] = []
        create_seq = 0
        for request in read.requests:
            if name_error is None and self._functions.traits(request.function).nature is Nature.BEGINS:
                create_seq = request.seq
                break
            outside.append(request)
        earlier = {} if name_error else await self._earlier.find(model, [request.request_id for request in outside])
        notices: list[NoticeMessage] = []
        for request in outside:
            first = earlier.get(request.request_id)
            if first is not None and first.outcome.body_hash == request.body_hash:
                notices += again(self._bus.subjects, request, first)
            else:
                notices.append(rejection(self._bus.subjects, request))
        with self._probe.step("dispatcher.reject", model=model, requests=outside):
            await self._notices.publish(notices)
        rejected = outside[-1].seq if outside else after
        return Rejection(rejected, create_seq, len(outside), is_complete=bool(create_seq) or read.pending == 0)


def rejection(subjects: Subjects, request: Request) -> NoticeMessage:
    """Return the notice that rejects a request outside its model's incarnations: the same each time."""
    outcome = outside_outcome(request)
    if request.group is not None:
        headers = {HEADER_CONTENT_TYPE: CONTENT_JSON, **notice_headers(request)}
        subject = subjects.notify_group(request.model, request.group)
        return subject, _group_body(request, request.group, outcome), headers
    subject = subjects.notify(request.model, request.request_id, Kind.REJECTED)
    return subject, outside_notice(request.model, outcome).to_json(), notice_headers(outcome)


def again(subjects: Subjects, request: Request, first: PublishedOutcome) -> Sequence[NoticeMessage]:
    """Return the notices that answer a resend outside its model's incarnations with the first outcome of its id."""
    if request.group is None:
        return first.messages
    body = _group_body(request, request.group, first.outcome)
    return [(subjects.notify_group(request.model, request.group), body, {HEADER_CONTENT_TYPE: CONTENT_JSON})]


def _group_body(request: Request, group: str, outcome: Outcome) -> bytes:
    """Return a group's notice on a request that no version holds; `seq` distinguishes it instead of a version."""
    refusals = [] if outcome.status is Status.DONE else [group_refusal(request, outcome)]
    already = 1 - len(refusals)
    return GroupNotice(request.model, group, request.at, 0, already, refusals, seq=request.seq).to_json()
