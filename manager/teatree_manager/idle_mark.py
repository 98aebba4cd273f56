"""The mark of an idle model: all outcomes of its versions are published, so clean-ups may remove them."""

from __future__ import annotations

import asyncio

from teatree.contracts.errors import RetryError
from teatree.engine.writer import Writer
from teatree.storage.versions.published_mark import write_published
from teatree_manager.outcome_publisher import OutcomePublisher

LOOK_S = 1.0
"""Seconds between checks: while requests arrive, the manifests hold what the mark would."""


class IdleMark:
    """Writes the mark once the outcomes of the newest version are published for good and no version follows it."""

    def __init__(self, writer: Writer, outcomes: OutcomePublisher) -> None:
        self._chain = writer.context.chain
        self._writer = writer
        self._outcomes = outcomes
        self._marked = outcomes.announced_version  # the store holds that already

    async def run(self) -> None:
        """Check until cancelled."""
        while True:
            await self._writer.context.clock.sleep_async(LOOK_S)
            version = self._writer.manifest.version
            if version > self._marked and self._outcomes.announced_version >= version:
                await self._write(version)

    async def _write(self, version: int) -> None:
        try:
            await asyncio.to_thread(self._mark, version)
        except RetryError:
            return  # the store is unavailable, which its breaker reports; the next check tries again
        self._marked = version

    def _mark(self, version: int) -> None:
        chain = self._chain
        if not chain.store.present([chain.manifest_key(version + 1)]):  # else a paused manager would set the mark back
            write_published(chain.store, chain.folder, version)
