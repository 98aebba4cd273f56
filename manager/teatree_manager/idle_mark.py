"""The mark of an idle model: all outcomes of its versions are published, so clean-ups may remove them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from teatree.contracts.errors import RetryError
from teatree.storage.chain import Chain
from teatree.storage.published_mark import write_published

LOOK_S = 1.0
"""Seconds between checks: while requests arrive, the manifests hold what the mark would."""


class IdleMark:
    """Writes the mark once the outcomes of the newest version are published for good and no version follows it."""

    def __init__(self, chain: Chain, marked: int, newest: Callable[[], int], published: Callable[[], int]) -> None:
        """Mark up to the version that `published` returns; `marked` is the version that the store holds already."""
        self._chain = chain
        self._marked = marked
        self._newest = newest
        self._published = published

    async def run(self) -> None:
        """Check until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            version = self._newest()
            if version > self._marked and self._published() >= version:
                await self._write(version)

    async def _write(self, version: int) -> None:
        try:
            await asyncio.to_thread(write_published, self._chain.store, self._chain.folder, version)
        except RetryError:
            return  # the store is unavailable, which its breaker reports; the next check tries again
        self._marked = version
