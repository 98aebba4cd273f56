"""Saying outcomes: after the manifest, in the order of the versions, again and again until NATS has them.

The stream of notices is not synced (docs/decisions/0008): a NATS server that is killed forgets the last ones, though it
acknowledged them. So what was said within the last moments before a connection was lost is said again, before anything
else is, and counts as said for a successor only after them. Repeated notices are identical.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Sequence

import structlog

from teatree.contracts.errors import RetryError
from teatree.contracts.failpoints import Failpoint
from teatree.contracts.manifest import Manifest
from teatree.contracts.notices import Status
from teatree.engine.announce import Announcer, Message
from teatree.messaging.notices import NoticeWriter
from teatree.storage.segments import Entry
from teatree_manager.lane import Backoff

UNSYNCED_MS = 2_000
"""Milliseconds for which NATS may forget a notice if it is killed; it flushes them far sooner."""
WAITING_MAX = 16
"""Versions that wait to be said before shipping waits too."""


class Sayer:
    """Says the outcomes of versions in their order, and knows up to which all are said.

    The outcome of an `archive` request is held back until its archive is complete; the versions after it do not wait.
    """

    def __init__(self, announcer: Announcer, notices: NoticeWriter, said_version: int, failpoint: Failpoint) -> None:
        self._announcer = announcer
        self._notices = notices
        self._failpoint = failpoint
        self._queue: asyncio.Queue[tuple[Manifest, Sequence[Entry], bool] | None] = asyncio.Queue(WAITING_MAX)
        self._open: set[int] = set()
        self._all_said = asyncio.Event()
        self._all_said.set()
        self._archives: set[int] = set()
        """Versions with an outcome that was held back and is not said yet."""
        self._held: dict[int, tuple[Manifest, list[Entry]]] = {}
        self._said = self._newest = said_version
        self._safe = said_version
        self._recent: deque[tuple[float, int, list[Message]]] = deque()
        self._losses = notices.losses
        """Connections lost up to which the last moments' notices were said again."""
        self._log = structlog.get_logger().bind(model=announcer.chain.model)

    @property
    def said_version(self) -> int:
        """Up to which version everything is said, and was kept by NATS long enough not to be forgotten."""
        self._forget_safe()
        return self._safe if self._recent else self._said

    @property
    def is_done(self) -> bool:
        """Whether everything that was put or expected is said."""
        return self._all_said.is_set()

    def say_again(self) -> None:
        """Have the last moments' notices said again, though nothing new may come: NATS may have forgotten them."""
        if self._queue.empty():
            self._queue.put_nowait(None)

    def _forget_safe(self) -> None:
        if self._losses != self._notices.losses:
            return
        while self._recent and time.monotonic() - self._recent[0][0] > UNSYNCED_MS / 1000:
            self._safe = max(self._safe, self._recent.popleft()[1])

    def expect(self, versions: Iterable[int]) -> None:
        """Announce versions that will be put: until then nothing beyond them counts as said."""
        self._open.update(versions)
        if self._open:
            self._all_said.clear()

    async def put(self, manifest: Manifest, entries: Sequence[Entry]) -> None:
        """Have a version said; waits while too many do."""
        held = [e for e in entries if _waits_for_archive(e)]
        self.expect((manifest.version,))
        if held:
            self._held[manifest.version] = (manifest, held)
            self._archives.add(manifest.version)
        now = [e for e in entries if not _waits_for_archive(e)]
        await self._queue.put((manifest, now, False))

    def archive_complete(self, version: int) -> None:
        """Have the outcomes said that waited for the archive of a version."""
        held = self._held.pop(version, None)
        if held is not None:
            task = asyncio.create_task(self._queue.put((*held, True)))
            task.add_done_callback(lambda t: t.exception())

    async def run(self) -> None:
        """Say what is put, for ever."""
        while True:
            put = await self._queue.get()
            if put is None:
                await self._publish([], "again")
                self._queue.task_done()
                continue
            manifest, entries, late = put
            messages = await self._messages(manifest, entries, late=late)
            await self._publish(messages, manifest.version)
            if late:
                self._archives.discard(manifest.version)
            if manifest.version not in self._archives:
                self._close(manifest.version)
            self._forget_safe()
            self._recent.append((time.monotonic(), self._said, messages))
            self._queue.task_done()

    async def _messages(self, manifest: Manifest, entries: Sequence[Entry], *, late: bool) -> list[Message]:
        backoff = Backoff()
        while True:
            try:
                return await asyncio.to_thread(self._announcer.messages, manifest, entries, late=late)
            except RetryError as e:
                self._log.warning("pages wait to be read", version=manifest.version, error=str(e))
                await backoff.pause()

    async def _publish(self, messages: list[Message], what: object) -> None:
        backoff = Backoff()
        while True:
            losses = self._notices.losses
            again = [] if losses == self._losses else [m for _, _, recent in self._recent for m in recent]
            try:
                self._failpoint("manager.say.before_notices")
                await self._notices.say([*again, *messages])
                self._failpoint("manager.say.after_notices")
            except RetryError as e:
                self._log.warning("outcomes wait to be said", version=what, error=str(e))
                await backoff.pause()
            else:
                self._losses = losses
                return

    def _close(self, version: int) -> None:
        self._open.discard(version)
        self._newest = max(self._newest, version)
        self._said = max(self._said, min(self._open) - 1 if self._open else self._newest)
        if not self._open:
            self._all_said.set()

    async def drained(self) -> None:
        """Wait until everything that was put or expected is said, archives complete."""
        await self._all_said.wait()
        await self._queue.join()


def _waits_for_archive(entry: Entry) -> bool:
    return entry.outcome.function == "archive" and entry.outcome.status is Status.DONE
