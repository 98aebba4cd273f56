"""Publishing one request and waiting for its outcome, even if messages are lost.

A missed outcome is looked up in the stream of notices, and after a longer silence the request is sent again under its
id. A resend is answered with the first outcome, so it is always safe.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from teatree.client.notice import Notice, ReadObject, outcome_error, read_notice, whole_notice
from teatree.contracts.errors import Code, RetryError, TeatreeError
from teatree.contracts.formats.notices import Kind
from teatree.contracts.retry import Pauses, Retry
from teatree.messaging.notices import last_notice

if TYPE_CHECKING:
    from teatree.client.sending.message import Encoded
    from teatree.messaging.bus import Bus
    from teatree.messaging.jetstream import PubAck
    from teatree.messaging.message import Subscription

LOOK_MS = 1_000
"""Silence after which the outcome is looked up in the stream."""
RESEND_MS = 15_000
"""Silence after which the request is sent again; doubles each time."""
PUBLISH_MS_MAX = 15_000
"""How long publishing a request to JetStream is retried before the sender gets the error."""
ATTEMPT_MS = 5_000
PAUSES = Pauses(50, 1_000)
_TRY_AGAIN = frozenset({Code.UNAVAILABLE, Code.TIMED_OUT, Code.BUSY})

OnNotice = Callable[[Notice], None]


async def publish_until_accepted(bus: Bus, request: Encoded, timeout_ms: float) -> PubAck:
    """Publish a request, repeatedly under its id, until it is in the log; raises the last error."""
    retry = Retry(PAUSES, min(timeout_ms, PUBLISH_MS_MAX), again=may_publish_again, clock=bus.clock)
    with bus.probe.step("client.publish", requests=[request]):
        return await retry.call_async(
            lambda: bus.publish_log(request.subject, request.body, request.headers, ATTEMPT_MS)
        )


def may_publish_again(error: TeatreeError) -> bool:
    """Return whether the log may accept the same messages later."""
    return isinstance(error, RetryError) and error.code in _TRY_AGAIN


class OutcomeWaiter:
    """Waits for one request's outcome; open it before the request is published, so that nothing is missed."""

    def __init__(
        self, bus: Bus, model: str, request_id: str, read_object: ReadObject, on_notice: OnNotice | None = None
    ) -> None:
        """`read_object` reads from the store what was too long for a notice."""
        self._bus = bus
        self._read_object = read_object
        self._model = model
        self._request_id = request_id
        self._on_notice = on_notice
        self._subscription: Subscription | None = None
        self._has_started = False
        """Whether a notice was received that is not the outcome."""

    async def __aenter__(self) -> Self:
        subject = self._bus.subjects.notify_request(self._model, self._request_id)
        self._subscription = await self._bus.subscribe(subject)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._subscription is not None:
            await self._subscription.close()

    async def wait(self, timeout_ms: float, request: Encoded | None = None) -> Notice:
        """Return the `done` notice; raises the error of a `rejected` or `failed` one, or `timed_out`.

        `request` is what to send again after a long silence.
        """
        with self._bus.probe.step("client.wait", model=self._model, request_id=self._request_id):
            return await self._wait(timeout_ms, request)

    async def _wait(self, timeout_ms: float, request: Encoded | None) -> Notice:
        now_ms = self._bus.clock.monotonic_ms
        give_up_ms = now_ms() + timeout_ms
        resend_at_ms, resend_ms = now_ms() + RESEND_MS, RESEND_MS
        while True:
            left_ms = give_up_ms - now_ms()
            notice = await self._next(min(LOOK_MS, left_ms)) if left_ms > 0 else None
            if notice is None:
                notice = await self._look_up()
            if notice is not None and notice.is_terminal:
                notice = await whole_notice(notice, self._read_object)
                if notice.kind is not Kind.DONE:
                    raise outcome_error(notice)
                return notice
            if notice is not None:
                self._has_started = True
                resend_at_ms = now_ms() + resend_ms  # `started` or `progress`: a manager works on it
            if now_ms() >= give_up_ms:
                raise self._too_late(timeout_ms, sent=request is not None)
            if request is not None and now_ms() >= resend_at_ms:
                resend_ms *= 2
                resend_at_ms = now_ms() + resend_ms
                await self._resend(request, give_up_ms - now_ms())

    async def _next(self, timeout_ms: float) -> Notice | None:
        """Return the next live notice; None after a silence or when some may have been missed."""
        if self._subscription is None:
            raise RuntimeError("an OutcomeWaiter is used inside `async with`")
        try:
            message = await self._subscription.next(max(1, int(timeout_ms)))
        except RetryError:
            return None
        return self._received(message.subject, message.headers, message.body)

    async def _look_up(self) -> Notice | None:
        subject = self._bus.subjects.notify_request(self._model, self._request_id)
        try:
            found = await last_notice(self._bus, subject, timeout_ms=LOOK_MS)
        except RetryError:
            return None  # NATS is unavailable: `wait` looks again until its timeout
        return None if found is None else self._received(found.subject, found.headers, found.body)

    def _received(self, subject: str, headers: dict[str, str], body: bytes) -> Notice:
        notice = read_notice(subject, headers, body)
        if self._on_notice is not None:
            self._on_notice(notice)
        return notice

    async def _resend(self, request: Encoded, timeout_ms: float) -> None:
        try:
            await publish_until_accepted(self._bus, request, min(timeout_ms, ATTEMPT_MS))
        except RetryError:
            return  # not fatal: its first copy is in the log

    def _too_late(self, timeout_ms: float, *, sent: bool) -> RetryError:
        if sent:
            known = "it is accepted and will still be applied"
            hint = "Send it again under the same id to receive its outcome."
        elif self._has_started:
            known = "a manager has started it"
            hint = "Wait longer."
        else:
            known = "there is no sign that it was ever sent"
            hint = "Check the model and the id; sending it (again) under this id has one effect."
        return RetryError(
            Code.TIMED_OUT,
            f"No outcome of request {self._request_id} within {timeout_ms:.0f} ms; {known}.",
            where=f"model {self._model}",
            hint=hint,
        )
