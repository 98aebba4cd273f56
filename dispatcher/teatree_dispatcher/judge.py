"""Answers for requests outside a model's life: nobody else would ever answer them.

Which ones these are, the log alone decides: beyond the offset of a version without life, everything before the next
`create_model` is outside. So a judgement is final however old that version is, two dispatchers say the same, and saying
it again is harmless.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from teatree.contracts.codec import dump_json, utc_text
from teatree.contracts.errors import Code, RequestError
from teatree.contracts.failpoints import Failpoint
from teatree.contracts.notices import Kind, Notice, Status
from teatree.contracts.requests import CONTENT_JSON, HEADER_CONTENT_TYPE, HEADER_TRACEPARENT, Request
from teatree.messaging.bus import Bus
from teatree.messaging.log import LogReader
from teatree.messaging.notices import NoticeMessage, NoticeWriter
from teatree.messaging.subjects import Subjects

CREATE = "create_model"
READ_REQUESTS_MAX = 1_000
READ_BYTES_MAX = 8_000_000


@frozen
class Judgement:
    """How far requests were answered."""

    judged_seq: int
    create_seq: int
    """The `create_model` that comes next, 0 if none was met: what follows is its manager's."""
    rejected: int
    is_complete: bool
    """Whether the end of the log, or a `create_model`, was reached."""


class Judge:
    """Rejects requests to models that are not alive."""

    def __init__(self, bus: Bus, failpoint: Failpoint) -> None:
        self._bus = bus
        self._notices = NoticeWriter(bus)
        self._failpoint = failpoint

    async def judge(self, model: str, after: int, name_error: RequestError | None) -> Judgement:
        """Answer a model's requests beyond `after` that lie outside its life, up to a thousand of them.

        `name_error` tells why the name can never be a model's: then a `create_model` is no exception.
        """
        read = await LogReader(self._bus, model).read(after, requests_max=READ_REQUESTS_MAX, bytes_max=READ_BYTES_MAX)
        outside: list[Request] = []
        create_seq = 0
        for request in read.requests:
            if request.function == CREATE and name_error is None:
                create_seq = request.seq
                break
            outside.append(request)
        self._failpoint("dispatcher.judge.before_say")
        await self._notices.say([rejection(self._bus.subjects, request) for request in outside])
        self._failpoint("dispatcher.judge.after_say")
        judged = outside[-1].seq if outside else after
        return Judgement(judged, create_seq, len(outside), is_complete=bool(create_seq) or read.pending == 0)


def rejection(subjects: Subjects, request: Request) -> NoticeMessage:
    """Return the notice that rejects a request outside its model's life: the same whenever it is said."""
    error = request.invalid or RequestError(
        Code.UNKNOWN_MODEL,
        f"There is no model {request.model!r} at this point of the log.",
        where="model",
        hint="Send `create_model` first.",
    )
    headers = {HEADER_CONTENT_TYPE: CONTENT_JSON}
    if request.traceparent and request.traceparent.isascii() and request.traceparent.isprintable():
        headers[HEADER_TRACEPARENT] = request.traceparent.strip()
    if request.group is not None:
        return subjects.notify_group(request.model, request.group), _group_body([request], error), headers
    notice = Notice(
        kind=Kind.REJECTED,
        model=request.model,
        at=request.at,
        request_id=request.request_id,
        function=request.function,
        seq=request.seq,
        error=error.to_dict(),
    )
    return subjects.notify(request.model, request.request_id, Kind.REJECTED), notice.to_json(), headers


def _group_body(requests: Sequence[Request], error: RequestError) -> bytes:
    """Return a group's notice on requests that no version holds; `seq` tells repeated ones apart instead."""
    refusals = [
        {"request_id": r.request_id, "seq": r.seq, "status": str(Status.REJECTED), "error": error.to_dict()}
        for r in requests
    ]
    first = requests[0]
    return dump_json(
        {
            "kind": str(Kind.DONE),
            "model": first.model,
            "group": first.group,
            "seq": first.seq,
            "applied": 0,
            "already": 0,
            "refused": len(refusals),
            "refusals": refusals,
            "at": utc_text(first.at),
        }
    )
