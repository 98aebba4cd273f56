"""Ledger runs: remembered request ids as sorted arrays, looked up where they lie on disk (docs/decisions/0004).

A run is `MAGIC`, count (u64), newest time (i64, microseconds), then `count` id hashes (u64, ascending), then the
`count` versions that hold their outcomes (u64); all little-endian. A look-up is a binary search in a memory map: a
process remembers a hundred million ids without loading them.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from teatree.contracts.errors import CorruptError

MAGIC = b"TTRUN01\n"
_HEADER = struct.Struct("<8sQq")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Hashes = NDArray[np.uint64]


def id_hash(request_id: str) -> int:
    """Return the 64-bit hash under which an id is remembered: the front of its blake3."""
    return int.from_bytes(blake3(request_id.encode()).digest(length=8), "little")


class LedgerRun:
    """One sorted run, mapped from its file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            header = file.read(_HEADER.size)
        size = path.stat().st_size
        if len(header) < _HEADER.size:
            raise CorruptError("The ledger run is cut short.", where=str(path))
        magic, count, newest_us = _HEADER.unpack(header)
        if magic != MAGIC or size != _HEADER.size + 16 * count:
            raise CorruptError("This is not a ledger run, or it is cut short.", where=str(path))
        words = np.memmap(path, dtype="<u8", mode="r", offset=_HEADER.size, shape=(2 * count,)) if count else _NONE
        self.hashes: Hashes = words[:count]
        self.versions: Hashes = words[count:]
        self.newest_at = _EPOCH + timedelta(microseconds=newest_us)

    def __len__(self) -> int:
        return len(self.hashes)

    def find(self, hashes: Hashes) -> list[tuple[int, int]]:
        """Return (position in `hashes`, version) for every hash that the run holds, several if it holds several."""
        if not len(self.hashes):
            return []
        places = np.searchsorted(self.hashes, hashes)
        inside = places < len(self.hashes)
        hits = np.nonzero(inside & (self.hashes[np.where(inside, places, 0)] == hashes))[0]
        found: list[tuple[int, int]] = []
        for position in hits:
            place = int(places[position])
            while place < len(self.hashes) and self.hashes[place] == hashes[position]:
                found.append((int(position), int(self.versions[place])))
                place += 1
        return found


_NONE = np.zeros(0, "<u8")


def write_run(path: Path, hashes: Hashes, versions: Hashes, newest_at: datetime) -> None:
    """Write a run from unsorted pairs of id hash and version, complete and synced or not at all."""
    order = np.argsort(hashes, kind="stable")
    newest_us = int((newest_at - _EPOCH).total_seconds() * 1_000_000)
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        file.write(_HEADER.pack(MAGIC, len(hashes), newest_us))
        hashes[order].astype("<u8").tofile(file)
        versions[order].astype("<u8").tofile(file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def merge_runs(path: Path, runs: Sequence[LedgerRun]) -> None:
    """Write one run that holds what `runs` hold."""
    write_run(
        path,
        np.concatenate([np.asarray(r.hashes) for r in runs]),
        np.concatenate([np.asarray(r.versions) for r in runs]),
        max(r.newest_at for r in runs),
    )
