"""The publisher of outcomes: after the manifest, in the order of the versions, retried until NATS has them.

The stream of notices is not synced (docs/decisions/0008): a NATS server that is killed loses the last ones, though it
acknowledged them. So notices that were published in the last moments before a connection was lost are published again,
before any others, and only count as published for a successor after those moments. Repeated notices are identical.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from functools import partial

from attrs import define, field

from teatree.contracts.errors import TeatreeError
from teatree.contracts.formats.manifest import Manifest
from teatree.contracts.formats.notices import NoticeMessage, Outcome, Status
from teatree.contracts.retry import Retry
from teatree.engine.publish.announce import Announcer
from teatree.messaging.notices import NoticeWriter, TooLongError
from teatree.storage.ledger.segments import Entry, Role
from teatree_manager.context import ManagerContext
from teatree_manager.followers.base import retrying
from teatree_manager.waits import WaitingPart

UNSYNCED_MS = 2_000
"""Milliseconds for which NATS may lose a notice if it is killed; it flushes them far sooner."""
WAITING_MAX = 16
"""Versions that wait to be announced before shipping waits too."""


@define
class _Part:
    """Some outcomes of one version, and the messages that publish them."""

    manifest: Manifest
    entries: Sequence[Entry]
    late: bool
    messages: list[NoticeMessage] = field(factory=list)


class OutcomePublisher:
    """Publishes the outcomes of versions in their order, and tracks the version up to which all are published.

    The outcome of an `archive` request is held back until the archive that answers it is complete, and with it its
    resends and the rest of its group, which gets one notice; the versions after it do not wait.
    """

    def __init__(
        self, context: ManagerContext, announcer: Announcer, notices: NoticeWriter, announced_version: int
    ) -> None:
        """Up to `announced_version` all outcomes are published."""
        self._announcer = announcer
        self._notices = notices
        self._probe = context.probe
        self._reasons = context.waits
        self._queue: asyncio.Queue[tuple[Manifest, Sequence[Entry], bool] | None] = asyncio.Queue(WAITING_MAX)
        self._open: set[int] = set()
        self._all_announced = asyncio.Event()
        self._all_announced.set()
        self._unannounced: Counter[int] = Counter()
        """By version, in how many parts its outcomes are still to be published."""
        self._held: dict[int, list[tuple[Manifest, list[Entry]]]] = {}
        """By the version whose archive they wait for."""
        self._announced = self._newest = announced_version
        self._safe = announced_version
        self._recent: deque[tuple[float, int, _Part]] = deque()
        self._losses = notices.losses
        """Lost connections after which the last moments' notices were published again."""
        self._log = context.log
        self._clock = context.clock

    @property
    def announced_version(self) -> int:
        """The version up to which all is published, for so long that NATS does not lose it any more."""
        self._forget_safe()
        return self._safe if self._recent else self._announced

    @property
    def is_done(self) -> bool:
        """Whether everything that was put or expected is published."""
        return self._all_announced.is_set()

    def announce_again(self) -> None:
        """Publish the last moments' notices again, even if no new ones follow: NATS may have lost them."""
        if self._queue.empty():
            self._queue.put_nowait(None)

    def _forget_safe(self) -> None:
        if self._losses != self._notices.losses:
            return
        while self._recent and self._clock.monotonic() - self._recent[0][0] > UNSYNCED_MS / 1000:
            self._safe = max(self._safe, self._recent.popleft()[1])

    def expect(self, versions: Iterable[int]) -> None:
        """Register versions that will be put: until then no version beyond them counts as published."""
        self._open.update(versions)
        if self._open:
            self._all_announced.clear()

    async def put(self, manifest: Manifest, entries: Sequence[Entry]) -> None:
        """Publish a version's outcomes, in the background; waits while too many versions wait."""
        self.expect((manifest.version,))
        parts = self._by_archive(manifest.version, entries)
        now = parts.pop(0, [])
        for archive, part in parts.items():
            self._held.setdefault(archive, []).append((manifest, part))
        self._unannounced[manifest.version] = 1 + len(parts)
        await self._queue.put((manifest, now, False))

    def _by_archive(self, version: int, entries: Sequence[Entry]) -> dict[int, list[Entry]]:
        """Return a version's outcomes by the version whose archive they wait for; those that wait for none, under 0."""
        if not any(map(self.is_barrier, {entry.outcome.function: entry.outcome for entry in entries}.values())):
            return {0: list(entries)}
        awaited = {id(e): self._awaited(version, e) for e in entries}
        groups: Counter[str] = Counter()
        for entry in entries:
            if entry.outcome.group:
                groups[entry.outcome.group] = max(groups[entry.outcome.group], awaited[id(entry)])
        found: dict[int, list[Entry]] = {}
        for entry in entries:
            archive = groups[entry.outcome.group] if entry.outcome.group else awaited[id(entry)]
            found.setdefault(archive, []).append(entry)
        return found

    def _awaited(self, version: int, entry: Entry) -> int:
        """Return the version whose archive an outcome waits for; 0 for none, or if a resend's archive is complete."""
        if entry.outcome.status is not Status.DONE or not self.is_barrier(entry.outcome):
            return 0
        if entry.role is Role.FIRST or entry.answer_version is None:
            return version
        return entry.answer_version if entry.answer_version in self._held else 0

    def is_barrier(self, outcome: Outcome) -> bool:
        """Return whether an outcome is published when an archive is complete."""
        return self._announcer.is_barrier(outcome)

    def archive_answered(self, version: int) -> None:
        """Publish the outcomes that waited for the archive of a version, or of a later one in its place."""
        for manifest, entries in self._held.pop(version, ()):
            task = asyncio.create_task(self._queue.put((manifest, entries, True)))
            task.add_done_callback(lambda t: t.exception())

    async def run(self) -> None:
        """Publish the outcomes that are put, for ever."""
        while True:
            put = await self._queue.get()
            if put is None:
                await self._publish([], "again")
                self._queue.task_done()
                continue
            manifest, entries, late = put
            part = _Part(manifest, entries, late)
            await self._make(part)
            await self._publish([part], manifest.version)
            self._unannounced[manifest.version] -= 1
            if not self._unannounced[manifest.version]:
                del self._unannounced[manifest.version]
                self._close(manifest.version)
            self._forget_safe()
            self._recent.append((self._clock.monotonic(), self._announced, part))
            self._queue.task_done()

    async def _make(self, part: _Part) -> None:
        read = partial(self._announcer.messages, part.manifest, part.entries, late=part.late)
        part.messages = await retrying(read, partial(self._report_waiting, part.manifest.version), self._clock)

    def _report_waiting(self, version: int, error: TeatreeError) -> None:
        self._log.warning("pages wait to be read", version=version, error=str(error))

    async def _publish(self, parts: list[_Part], what: object) -> None:
        """Publish parts until NATS has them, whatever it answers: no failure here ends a manager."""
        retry = Retry(again=_always, report=partial(self._report_unpublished, what), clock=self._clock)
        await retry.call_async(partial(self._publish_once, parts))
        self._reasons.clear(WaitingPart.OUTCOMES)

    async def _publish_once(self, parts: list[_Part]) -> None:
        losses = self._notices.losses
        again = [] if losses == self._losses else [part for _, _, part in self._recent]
        try:
            with self._probe.step("manager.announce", parts=parts):
                await self._notices.publish([message for part in (*again, *parts) for message in part.messages])
        except TooLongError:  # the server accepts less than when they were made
            for part in (*again, *parts):
                await self._make(part)
            raise
        self._losses = losses

    def _report_unpublished(self, what: object, error: TeatreeError) -> None:
        if self._reasons.set(WaitingPart.OUTCOMES, str(error)):
            self._log.warning("outcomes wait to be published", version=what, error=str(error))

    def pass_over(self, version: int) -> None:
        """Count a version as published that was cleaned up meanwhile: only published ones are."""
        self._close(version)

    def _close(self, version: int) -> None:
        self._open.discard(version)
        self._newest = max(self._newest, version)
        self._announced = max(self._announced, min(self._open) - 1 if self._open else self._newest)
        if not self._open:
            self._all_announced.set()

    async def drained(self) -> None:
        """Wait until everything that was put or expected is published, with archives complete."""
        await self._all_announced.wait()
        await self._queue.join()


def _always(_: TeatreeError) -> bool:
    return True
