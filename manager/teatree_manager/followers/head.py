"""The follower that writes the object `head`, a copy of the newest manifest, and checks the chain's end against it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from typing_extensions import override

from teatree.contracts.formats.manifest import Manifest
from teatree.storage.ledger.segments import Entry
from teatree.storage.versions.head import advance_head
from teatree_manager.context import ManagerContext
from teatree_manager.followers.base import Follower


class HeadFollower(Follower):
    """Writes a copy of the newest manifest, at most once an interval, and checks whether one near it vanished."""

    name = "head"

    def __init__(self, context: ManagerContext) -> None:
        super().__init__(context.probe, context.clock)
        self._chain = context.chain
        self._interval_s = context.settings.manager.head_interval_ms / 1000
        self._manifest: Manifest | None = None
        self._written = 0
        self._written_at_s = float("-inf")
        self._leaving = asyncio.Event()

    @override
    def follow(self, manifest: Manifest, entries: Sequence[Entry] = ()) -> None:
        self._manifest = manifest
        self.wake()

    @override
    async def work(self) -> None:
        left_s = self._written_at_s + self._interval_s - self._clock.monotonic()
        if left_s > 0:
            await self._clock.wait_async(self._leaving, left_s)
        if self._manifest is not None:
            await asyncio.to_thread(self._advance, self._manifest)

    def _advance(self, manifest: Manifest) -> None:
        """Write the copy, and raise `corrupt` for a version that vanished: the next check finds whether it is back."""
        if manifest.version > self._written:
            advance_head(self._chain.store, self._chain.folder, manifest)
            self._written, self._written_at_s = manifest.version, self._clock.monotonic()
        end = self._chain.end(manifest.version)
        vanished = end.missing[-1:] if end.newest == end.known else (end.known,)
        if vanished:
            raise self._chain.missing_error(vanished[0], end.newest)

    @override
    async def drained(self) -> None:
        self._leaving.set()
        await super().drained()


def make(context: ManagerContext) -> HeadFollower:
    """Return the follower of a model."""
    return HeadFollower(context)
