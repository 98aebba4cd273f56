"""A fake of dispatcher and manager: reads the real log and publishes outcomes through the real NATS."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Self

from teatree.contracts.errors import RetryError
from teatree.contracts.formats.notices import NoticeMessage
from teatree.contracts.formats.requests import Request
from teatree.contracts.settings import NatsSettings
from teatree.messaging.bus import Bus
from teatree.messaging.log import LogReader
from teatree.messaging.message import ReceivedMessage
from teatree.messaging.notices import NoticeWriter
from teatree.messaging.streams import ensure_streams
from teatree.storage.objects.base import ObjectStore

POLL_S = 0.02
Decide = Callable[[Request], tuple[str, dict[str, Any]]]
"""Returns the kind of a request's outcome and the members of its notice."""


def done(request: Request) -> tuple[str, dict[str, Any]]:
    """Return the outcome `done` with the number of a request's rows."""
    return "done", {"result": {"rows": len(json.loads(request.body or b"{}").get("rows", []))}}


class FakeManager:
    """Publishes outcomes of one model's requests in their order, remembering ids; a batch is a version."""

    def __init__(
        self, settings: NatsSettings, model: str, decide: Decide = done, *, notices_max: int = 100_000
    ) -> None:
        self.settings = settings
        self.model = model
        self.decide = decide
        self.requests: list[Request] = []
        """All requests of the log, resends too."""
        self.applied: dict[str, tuple[str, dict[str, Any]]] = {}
        self.version = 0
        self.silent = False
        """Whether it applies requests without publishing notices."""
        self.store: ObjectStore | None = None
        """Where refusals are stored that are too many for a notice."""
        self._notices_max = notices_max
        self._published: deque[NoticeMessage] = deque(maxlen=100)
        self._losses = 0
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self.bus = await Bus.connect(self.settings, name="fake-manager")
        await ensure_streams(self.bus, log_bytes_max=1 << 30, notices_age_s=3600, notices_max=self._notices_max)
        self.writer = NoticeWriter(self.bus)
        self._tasks.append(asyncio.create_task(self._run()))
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.bus.close()
        errors = [r for r in results if isinstance(r, Exception)]
        if errors:
            raise errors[0]

    async def _run(self) -> None:
        reader = LogReader(self.bus, self.model)
        after = 0
        while True:
            if self.bus.losses != self._losses and self.bus.is_connected:
                await self._publish([])
            try:
                requests = (await reader.read(after, requests_max=4000, bytes_max=64_000_000)).requests
            except RetryError:  # the server is unavailable
                requests = []
            if not requests:
                await asyncio.sleep(POLL_S)
                continue
            after = requests[-1].seq
            await self._apply(requests)

    async def _apply(self, requests: list[Request]) -> None:
        self.version += 1
        groups: dict[str, dict[str, Any]] = {}
        for request in requests:
            self.requests.append(request)
            again = request.request_id in self.applied
            if not again:
                self.applied[request.request_id] = self.decide(request)
            kind, members = self.applied[request.request_id]
            if request.group is None:
                await self.notify(request, kind, **members)
                continue
            counts = groups.setdefault(request.group, {"applied": 0, "already": 0, "refused": 0, "refusals": []})
            if kind == "done":
                counts["already" if again else "applied"] += 1
            else:
                counts["refused"] += 1
                refusal = {"request_id": request.request_id, "seq": request.seq, "status": kind}
                counts["refusals"].append({**refusal, "error": members["error"]})
        for group, counts in groups.items():
            await self._publish_group(group, counts)
        version = {"kind": "version", "model": self.model, "version": self.version, "at": "2026-01-01T00:00:00Z"}
        await self.publish(self.bus.subjects.notify_version(self.model), version)

    async def notify(self, request: Request, kind: str, **members: Any) -> None:
        """Publish a notice on a request."""
        notice = {
            "kind": kind,
            "model": self.model,
            "request_id": request.request_id,
            "function": request.function,
            "seq": request.seq,
            "version": self.version,
            "at": "2026-01-01T00:00:00.000000Z",
            **members,
        }
        await self.publish(self.bus.subjects.notify(self.model, request.request_id, kind), notice)

    async def _publish_group(self, group: str, counts: dict[str, Any]) -> None:
        notice = {"kind": "done", "model": self.model, "group": group, "version": self.version, **counts}
        if self.store is not None:
            key = f"refusals/{group}-{self.version}.json"
            self.store.put(key, json.dumps(counts["refusals"]).encode())
            notice |= {"refusals": [], "ref": key}
        notice["at"] = "2026-01-01T00:00:00.000000Z"
        await self.publish(self.bus.subjects.notify_group(self.model, group), notice)

    async def publish(self, subject: str, notice: dict[str, Any]) -> None:
        """Publish a notice, unless silent."""
        if not self.silent:
            await self._publish([(subject, json.dumps(notice).encode(), {})])

    async def _publish(self, messages: list[NoticeMessage]) -> None:
        while True:
            losses = self.bus.losses
            # A killed server forgets the notices of its last moment, though it acknowledged them.
            again = [] if losses == self._losses else list(self._published)
            try:
                await self.writer.publish([*again, *messages])
            except RetryError:
                await asyncio.sleep(POLL_S)
            else:
                self._losses = losses
                self._published.extend(messages)
                return

    async def answer(
        self,
        reply_to: Callable[[ReceivedMessage], Awaitable[tuple[bytes, dict[str, str]] | None]],
        subject: str | None = None,
    ) -> None:
        """Serve direct reads from now on; None sends no reply."""
        subscription = await self.bus.subscribe(subject or self.bus.subjects.query_model(self.model))

        async def serve() -> None:
            async for message in subscription:
                answer = await reply_to(message)
                if answer is not None:
                    await self.bus.publish(message.reply, *answer)

        self._tasks.append(asyncio.create_task(serve()))


async def until(holds: Callable[[], bool]) -> None:
    """Return when a condition holds; the test's own time limit bounds it."""
    while not holds():  # noqa: ASYNC110 - the condition is about another task's plain state
        await asyncio.sleep(0.01)
