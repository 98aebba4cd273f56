"""Saying outcomes: after the manifest, in the order of the versions, again and again until NATS has them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

import structlog

from teatree.contracts.errors import RetryError
from teatree.contracts.failpoints import Failpoint
from teatree.contracts.manifest import Manifest
from teatree.contracts.notices import Status
from teatree.engine.announce import Announcer
from teatree.messaging.notices import NoticeWriter
from teatree.storage.segments import Entry
from teatree_manager.lane import Backoff

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
        self._queue: asyncio.Queue[tuple[Manifest, Sequence[Entry], bool]] = asyncio.Queue(WAITING_MAX)
        self._open: deque[int] = deque()
        self._held: dict[int, tuple[Manifest, list[Entry]]] = {}
        self._said = said_version
        self._log = structlog.get_logger().bind(model=announcer.chain.model)

    @property
    def said_version(self) -> int:
        """Up to which version everything is said."""
        return self._said

    async def put(self, manifest: Manifest, entries: Sequence[Entry]) -> None:
        """Have a version said; waits while too many do."""
        held = [e for e in entries if _waits_for_archive(e)]
        self._open.append(manifest.version)
        if held:
            self._held[manifest.version] = (manifest, held)
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
            manifest, entries, late = await self._queue.get()
            await self._say(manifest, entries, late=late)
            if (not late and manifest.version not in self._held) or late:
                self._close(manifest.version)
            self._queue.task_done()

    async def _say(self, manifest: Manifest, entries: Sequence[Entry], *, late: bool) -> None:
        backoff = Backoff()
        while True:
            try:
                self._failpoint("manager.say.before_notices")
                messages = await asyncio.to_thread(self._announcer.messages, manifest, entries, late=late)
                await self._notices.say(messages)
                self._failpoint("manager.say.after_notices")
            except RetryError as e:
                self._log.warning("outcomes wait to be said", version=manifest.version, error=str(e))
                await backoff.pause()
            else:
                return

    def _close(self, version: int) -> None:
        self._open.remove(version)
        done_before = self._open[0] if self._open else version + 1
        self._said = max(self._said, done_before - 1) if self._open else max(self._said, version)

    async def drained(self) -> None:
        """Wait until everything that was put is said, but for what waits for an archive."""
        await self._queue.join()


def _waits_for_archive(entry: Entry) -> bool:
    return entry.outcome.function == "archive" and entry.outcome.status is Status.DONE
