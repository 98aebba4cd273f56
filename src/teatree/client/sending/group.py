"""The outcomes of a bulk sender's group: its notices, one per version, added up."""

from __future__ import annotations

import asyncio
import math
from array import array
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from teatree.client.notice_log import NoticeReader, follow_notices, read_retrying
from teatree.client.sending.receipt import REFUSALS_MAX, Refusal

if TYPE_CHECKING:
    from teatree.client.notice import Notice
    from teatree.messaging.bus import Bus

ReadRef = Callable[[str], Awaitable[list[dict[str, Any]]]]
"""Reads the JSON list under an object key: refusals too many for a notice."""


class GroupTracker:
    """Adds up the notices of one group, in a separate task.

    Notices come in the order of versions: once as many requests are accounted for as were accepted, none is missing.
    A group that a later one replaced may have further copies in the log: `subtract_copies` handles those.
    """

    def __init__(self, bus: Bus, model: str, group: str, read_ref: ReadRef, on_change: Callable[[], None]) -> None:
        self.group = group
        self.accepted = 0
        """Requests that are known to be in the log."""
        self.accepted_seq = 0
        """Sequence of the last of them."""
        self.applied = 0
        self.already = 0
        self.refused = 0
        self.refusals: dict[str, Refusal] = {}
        """By request id, since a request that was sent twice counts once."""
        self.version: int | None = None
        self._refused_seqs = array("q")
        self._refs: deque[str] = deque()
        self._bus = bus
        self._subject = bus.subjects.notify_group(model, group)
        self._read_ref = read_ref
        self._on_change = on_change
        self._reader: NoticeReader | None = None
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()

    @property
    def accounted(self) -> int:
        """Requests whose outcome is known."""
        return self.applied + self.already + self.refused

    async def start(self) -> None:
        """Subscribe; call it before anything of the group is published."""
        self._reader = await NoticeReader.at(self._bus, self._subject, None)
        self._task = asyncio.create_task(self._listen(self._reader))

    async def _listen(self, reader: NoticeReader) -> None:
        async with aclosing(follow_notices(self._bus, reader, self._subject)) as notices:
            async for notice in notices:  # nothing awaits in here: what was read is counted, also if this task ends
                self._count(notice)
                self._changed.set()
                self._on_change()

    def _count(self, notice: Notice) -> None:
        if notice.version is not None:
            self.version = max(notice.version, self.version or 0)
        members: Mapping[str, Any] = notice.members
        self.applied += int(members.get("applied", 0))
        self.already += int(members.get("already", 0))
        self.refused += int(members.get("refused", 0))
        if "ref" in members:
            self._refs.append(members["ref"])
        else:
            self._add(members.get("refusals", []))

    def _add(self, listed: Sequence[Mapping[str, Any]]) -> None:
        self._refused_seqs.extend(item["seq"] for item in listed)
        for item in listed[: max(0, REFUSALS_MAX - len(self.refusals))]:
            refusal = Refusal(item["request_id"], item["seq"], item.get("status", "rejected"), item["error"])
            self.refusals[refusal.request_id] = refusal

    async def wait(self, silence_ms_max: float) -> bool:
        """Return True once all that is known to be in the log is accounted for; False after such a silence."""
        while self.accounted < self.accepted:
            self._changed.clear()
            changed = asyncio.ensure_future(self._changed.wait())
            watched = [changed] if self._task is None else [changed, self._task]
            done, _ = await asyncio.wait(watched, timeout=silence_ms_max / 1000, return_when=asyncio.FIRST_COMPLETED)
            changed.cancel()
            if self._task is not None and self._task in done:
                self._task.result()  # it ends only by an error: this raises it
            if not done:
                return False
        return True

    async def subtract_copies(self, silence_ms_max: float) -> None:
        """Read the remaining notices, and subtract the requests that the next group counts too.

        Requests beyond the accepted ones are copies of those sent again: the next group counts those refused here as
        refused, and the others as `already`. (If the model was dropped in between it counts them as refused: `already`
        is negative then.) A copy without a notice here is counted only there. Raises `unavailable` and `timed_out`.
        """
        await self.stop()
        if self._reader is None:
            return
        self._reader.interrupted()
        while (notices := await read_retrying(self._reader, silence_ms_max)) is not None:
            for notice in notices:
                self._count(notice)
        await self.read_refs(count_max=math.inf)
        copies = self.accounted - self.accepted
        refused = sum(seq > self.accepted_seq for seq in self._refused_seqs)
        self.refused -= refused
        self.already -= copies - refused
        self.refusals = {key: refusal for key, refusal in self.refusals.items() if refusal.seq <= self.accepted_seq}

    async def read_refs(self, count_max: float = REFUSALS_MAX) -> None:
        """Read refusals that notices name by reference, until so many have their reasons."""
        while self._refs and len(self.refusals) < count_max:
            self._add(await self._read_ref(self._refs.popleft()))

    async def stop(self) -> None:
        """Unsubscribe."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.wait((self._task,))
