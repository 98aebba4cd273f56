"""The mark of a model at rest: all outcomes of its versions are published, so clean-ups may take them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from teatree.contracts.errors import RetryError
from teatree.storage.chain import Chain
from teatree.storage.published_mark import write_published

LOOK_S = 1.0
"""Seconds between looks: a model that takes requests has that in its manifests and writes no mark."""


class IdleMark:
    """Writes the mark once nothing has come after the newest version until its outcomes were published for good."""

    def __init__(self, chain: Chain, marked: int, newest: Callable[[], int], published: Callable[[], int]) -> None:
        """Mark up to what `published` returns; `marked` is what the store tells already."""
        self._chain = chain
        self._marked = marked
        self._newest = newest
        self._published = published

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            version = self._newest()
            if version > self._marked and self._published() >= version:
                await self._write(version)

    async def _write(self, version: int) -> None:
        try:
            await asyncio.to_thread(write_published, self._chain.store, self._chain.folder, version)
        except RetryError:
            return  # the store is away, which its breaker reports; the next look tries again
        self._marked = version
