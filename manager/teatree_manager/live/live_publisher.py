"""Publishes notices about live queries: once, and not into any stream. What is lost is read anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from teatree.contracts.errors import RequestError, RetryError
from teatree.contracts.formats.live import RENEW, LiveKind, LiveNotice
from teatree.messaging.bus import Bus
from teatree.messaging.headers import decode_status
from teatree.messaging.inbox import Exchange, ReplySink
from teatree.messaging.jetstream import NO_RESPONDERS
from teatree_manager.context import ManagerContext


class LivePublisher:
    """The notices of one model's live queries."""

    def __init__(self, context: ManagerContext, bus: Bus, unreceived: Callable[[str], None]) -> None:
        """`unreceived` is called with the last token of a subject that no client is subscribed to."""
        self._model = context.model
        self._log = context.log
        self._bus = bus
        self._unreceived = unreceived
        self._replies = bus.open(self._sink_of)
        self.must_call = True
        """Whether watchers may have missed a notice: they are called to renew."""

    async def call(self) -> None:
        """Call all watchers of the model to renew, if some may have missed a notice."""
        if self.must_call:
            self.must_call = False
            await self.publish([(RENEW, LiveNotice(LiveKind.RENEW, self._model))])

    async def publish(self, notices: Sequence[tuple[str, LiveNotice]]) -> None:
        """Publish notices, each with the last token of its subject."""
        try:
            await self._bus.send([self._frame(query, notice) for query, notice in notices])
        except RetryError as e:  # the connection is lost; once it is restored all watchers are called
            self.must_call = True
            self._log.warning("notices about live queries were not published", error=str(e))

    def _frame(self, query: str, notice: LiveNotice) -> bytes:
        subject, reply = self._bus.subjects.notify_watch(self._model, query), f"{self._replies.reply}.{query}"
        try:
            return self._bus.frame(subject, *notice.to_message(), reply)
        except RequestError:  # it is longer than what the server takes
            anew = LiveNotice(LiveKind.ANEW, self._model, notice.series, notice.since, notice.through, notice.version)
            return self._bus.frame(subject, *anew.to_message(), reply)

    def _sink_of(self, _: Exchange) -> ReplySink:
        def sink(tail: bytes, block: bytes | None, _body: bytes) -> None:
            if decode_status(block) == NO_RESPONDERS:
                self._unreceived(tail.decode())

        return sink
