"""The pages of a direct answer that do not go into its reply: stored, and named in its headers."""

from __future__ import annotations

import asyncio
from typing import Any

from teatree.contracts.formats.codec import dump_json
from teatree.contracts.formats.requests import HEADER_REFS
from teatree.contracts.names import new_id
from teatree.storage.versions.chain import Chain


class StoredPages:
    """Those of one answer; `store` is what `ReadPool` takes."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._folder = f"pages/direct/{new_id()}"
        self._refs: list[dict[str, Any]] = []

    async def store(self, number: int, rows: int, body: bytes) -> None:
        """Store a page."""
        key = self._chain.key(f"{self._folder}/{number:06d}")
        await asyncio.to_thread(self._chain.store.put, key, body)
        self._refs.append({"page": number, "ref": key, "rows": rows})

    @property
    def headers(self) -> dict[str, str]:
        """The header that names all that were stored; none if there is none."""
        return {HEADER_REFS: dump_json(self._refs).decode()} if self._refs else {}
