"""The offsets of published versions, for `expected_version`: those requested last are kept in memory."""

from __future__ import annotations

from cachetools import LRUCache

from teatree.contracts.errors import Code, RequestError
from teatree.contracts.formats.manifest import Manifest, Stub
from teatree.storage.versions.chain import Chain

OFFSETS_MAX = 1_000
"""Versions kept in memory."""


class Offsets:
    """The offsets of one model's versions."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._offsets: LRUCache[int, int] = LRUCache(OFFSETS_MAX)

    def find(self, version: int, newest: int) -> int:
        """Return a version's offset; raises `unknown_version` beyond the `newest`."""
        if version not in self._offsets:
            manifest = self._chain.entry(version)
            if manifest.version > newest:
                raise RequestError(
                    Code.UNKNOWN_VERSION, f"There is no version {version} yet.", where="expected_version"
                )
            self.remember(manifest)
        return self._offsets[version]

    def remember(self, manifest: Manifest | Stub) -> None:
        """Keep a version's offset."""
        self._offsets[manifest.version] = manifest.offset
