"""What became of a bulk sender's group: its notices, one per version, added up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from teatree.client.notice_log import NoticeReader, follow_notices
from teatree.client.receipt import REFUSALS_MAX, Refusal

if TYPE_CHECKING:
    from teatree.client.notice import Notice
    from teatree.messaging.bus import Bus

ReadRef = Callable[[str], Awaitable[list[dict[str, Any]]]]
"""Reads the JSON list under an object key: refusals too many for a notice."""


class GroupTracker:
    """Adds up the notices of one group, in a task of its own.

    Versions are told in order, so once as many requests are accounted for as were accepted, those are all of them.
    """

    def __init__(self, bus: Bus, model: str, group: str, read_ref: ReadRef, on_change: Callable[[], None]) -> None:
        self.group = group
        self.applied = 0
        self.already = 0
        self.refused = 0
        self.refusals: dict[str, Refusal] = {}
        """By request id: one that was sent twice is refused once."""
        self.version: int | None = None
        self._bus = bus
        self._subject = bus.subjects.notify_group(model, group)
        self._read_ref = read_ref
        self._on_change = on_change
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()

    @property
    def accounted(self) -> int:
        """Requests whose outcome is known."""
        return self.applied + self.already + self.refused

    async def start(self) -> None:
        """Begin to listen: call it before anything of the group is published."""
        reader = await NoticeReader.at(self._bus, self._subject, None)
        self._task = asyncio.create_task(self._listen(reader))

    async def _listen(self, reader: NoticeReader) -> None:
        async with aclosing(follow_notices(self._bus, reader, self._subject)) as notices:
            async for notice in notices:
                if notice.version is not None:
                    self.version = max(notice.version, self.version or 0)
                await self._count(notice)
                self._changed.set()
                self._on_change()

    async def _count(self, notice: Notice) -> None:
        members: Mapping[str, Any] = notice.members
        self.applied += int(members.get("applied", 0))
        self.already += int(members.get("already", 0))
        self.refused += int(members.get("refused", 0))
        listed = await self._read_ref(members["ref"]) if "ref" in members else members.get("refusals", [])
        for item in listed[: max(0, REFUSALS_MAX - len(self.refusals))]:
            refusal = Refusal(item["request_id"], item.get("seq"), item.get("status", "rejected"), item["error"])
            self.refusals[refusal.request_id] = refusal

    async def wait(self, count: int, silence_ms_max: float) -> bool:
        """Return True once `count` requests are accounted for; False if nothing was heard for `silence_ms_max`."""
        while self.accounted < count:
            self._changed.clear()
            changed = asyncio.ensure_future(self._changed.wait())
            watched = [changed] if self._task is None else [changed, self._task]
            done, _ = await asyncio.wait(watched, timeout=silence_ms_max / 1000, return_when=asyncio.FIRST_COMPLETED)
            changed.cancel()
            if self._task is not None and self._task in done:
                self._task.result()  # it never ends by itself: this raises what went wrong
            if not done:
                return False
        return True

    async def stop(self) -> None:
        """Listen no longer."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.wait((self._task,))
