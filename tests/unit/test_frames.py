"""The one fetch of pieces out of packs: what does not match its hash is read again, then `corrupt`."""

from __future__ import annotations

from pathlib import Path

import pytest
from blake3 import blake3

from teatree.contracts.errors import CorruptError
from teatree.storage.objects.local import LocalObjectStore
from teatree.storage.versions.frames import Frame, fetch, plan_reads
from teatree.storage.versions.packs import PackWriter

PIECES = [bytes([number]) * 5_000 for number in range(3)]


def write_pack(folder: Path) -> tuple[LocalObjectStore, list[Frame]]:
    """Write three pieces into a pack; return the store and their frames."""
    store = LocalObjectStore(folder / "store")
    with PackWriter(folder / "pack", "models/a/packs/1") as writer:
        places = [writer.add(piece) for piece in PIECES]
    store.put(writer.key, writer.path)
    return store, [
        Frame(number, writer.key, *place, len(piece), blake3(piece).digest())
        for number, (piece, place) in enumerate(zip(PIECES, places, strict=True))
    ]


def test_a_range_read_returns_its_pieces(tmp_path: Path) -> None:
    """Neighbouring frames come by one read, each with its piece."""
    store, frames = write_pack(tmp_path)
    [read] = plan_reads(frames)
    assert fetch(store, read) == list(zip(frames, PIECES, strict=True))


def test_damage_names_the_piece(tmp_path: Path) -> None:
    """A piece that hashes otherwise is `corrupt`, and the error names it."""
    store, frames = write_pack(tmp_path)
    wrong = Frame(7, frames[0].key, frames[0].offset, frames[0].length, 5_000, blake3(b"other").digest(), kind="leaf")
    [read] = plan_reads([wrong])
    with pytest.raises(CorruptError, match=r"The leaf does not match its hash\. \(at models/a/packs/1, leaf 7\)"):
        fetch(store, read)
    cut = Frame(1, frames[1].key, frames[1].offset, frames[1].length, 4_999, frames[1].digest)
    [read] = plan_reads([cut])
    with pytest.raises(CorruptError, match="block 1"):
        fetch(store, read)
