"""Packs and the block table: how a version's bytes lie in the object store (docs/decisions/0003).

A pack is `MAGIC` and then zstd frames, one a piece: changed blocks, the header part of the file, changed leaves of the
block table. Nothing in it is ever rewritten. The block table has one 64-byte entry a block, `LEAF_ENTRIES` a leaf; a
version writes only the leaves in which an entry changed and refers to the older ones where they lie, so that a
manifest and its pack grow with the change and not with the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import IO, Self

import numpy as np
import pyarrow as pa
from blake3 import blake3
from numpy.typing import NDArray

from teatree.contracts.formats.manifest import Extent, FileLayout, ObjectRef
from teatree.storage.versions.frames import Frame

MAGIC = b"TTPACK1\n"
LEAF_ENTRIES = 128
HASH_BYTES = 32
COMPRESSION_LEVEL = 1
"""DuckDB's blocks are compressed already; a higher level costs time and gains little."""

ENTRY = np.dtype(
    [
        ("pack", "<u8"),  # number of the version whose pack holds the block
        ("write", "<u8"),  # that version's write id
        ("offset", "<u8"),  # of the frame within the pack
        ("length", "<u4"),  # of the frame
        ("base", "<u2"),  # whose pack: index into FileLayout.bases
        ("flags", "<u2"),  # 0
        ("hash", "u1", (HASH_BYTES,)),  # blake3 of the block
    ]
)
"""One block's place and hash: 64 bytes, little-endian."""

Entries = NDArray[np.void]
BlockBytes = NDArray[np.uint8]
"""A row of bytes for each block, such as its hash."""


def pack_key(folder: str, version: int, write_id: str) -> str:
    """Return the key of the pack that a writer made for a version: no two writers ever share one."""
    return f"{folder}/packs/{version:020d}-{write_id}"


def checksum(body: bytes) -> str:
    """Return the blake3 of some bytes, as hex."""
    return blake3(body).hexdigest()


class PackWriter:
    """Writes one pack to a local file, to be uploaded when it is complete.

    Use as a context manager; `close` (or leaving the block) completes the file, `abandon` removes it.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path = path
        self.key = key
        self._file: IO[bytes] = path.open("wb")
        self._hasher = blake3()
        self._codec = pa.Codec("zstd", compression_level=COMPRESSION_LEVEL)  # its frames hold their content's size
        self._size = 0
        self.frames = 0
        self._write(MAGIC)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _write(self, body: bytes) -> None:
        self._file.write(body)
        self._hasher.update(body)
        self._size += len(body)

    def add(self, body: bytes) -> tuple[int, int]:
        """Append one piece; return the offset and length of its frame."""
        frame = self._codec.compress(body, asbytes=True)
        offset = self._size
        self._write(frame)
        self.frames += 1
        return offset, len(frame)

    def add_extent(self, body: bytes) -> Extent:
        """Append one piece; return where it lies and what it must hash to."""
        offset, length = self.add(body)
        return Extent(pack=self.key, offset=offset, length=length, checksum=checksum(body))

    def finish(self, folder: str) -> ObjectRef:
        """Complete the file and return its reference, its key taken relative to the model's `folder`."""
        self._file.close()
        return ObjectRef(
            key=self.key.removeprefix(f"{folder}/"),
            size_bytes=self._size,
            checksum=self._hasher.hexdigest(),
            rows=self.frames,
        )


class BlockTable:
    """Where every block of one version's file lies, and what it hashes to."""

    def __init__(self, entries: Entries, leaves: tuple[Extent, ...], bases: tuple[str, ...]) -> None:
        self.entries = entries
        self.leaves = leaves
        self.bases = bases

    @classmethod
    def empty(cls, folder: str) -> BlockTable:
        """Return the table of a file without blocks."""
        return cls(np.zeros(0, ENTRY), (), (folder,))

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def hashes(self) -> BlockBytes:
        """The hash of each block."""
        hashes: BlockBytes = self.entries["hash"]
        return hashes

    def pack_of(self, entry: np.void) -> str:
        """Return the key of the pack that holds an entry's block."""
        return _pack_of(entry, self.bases)

    def frame(self, block: int, block_bytes: int) -> Frame:
        """Return where a block lies, and what it must be."""
        return block_frame(block, self.entries[block], self.bases, block_bytes)

    def changed(self, block_count: int, updates: dict[int, np.void], writer: PackWriter) -> BlockTable:
        """Return the table after `updates` at `block_count` blocks, its changed leaves appended to `writer`."""
        entries = np.zeros(block_count, ENTRY)
        kept = min(block_count, len(self.entries))
        entries[:kept] = self.entries[:kept]
        for index, entry in updates.items():
            entries[index] = entry
        dirty = {index // LEAF_ENTRIES for index in updates}
        if block_count != len(self.entries) and block_count:
            dirty.add((block_count - 1) // LEAF_ENTRIES)
        leaves: list[Extent] = []
        for number in range(-(-block_count // LEAF_ENTRIES)):
            if number in dirty or number >= len(self.leaves):
                piece = entries[number * LEAF_ENTRIES : (number + 1) * LEAF_ENTRIES]
                leaves.append(writer.add_extent(piece.tobytes()))
            else:
                leaves.append(self.leaves[number])
        return BlockTable(entries, tuple(leaves), self.bases)


def new_entry(version: int, write_id: str, offset: int, length: int, digest: bytes) -> np.void:
    """Return the entry of a block that lies in this version's own pack."""
    entry = np.zeros(1, ENTRY)
    entry["pack"], entry["write"], entry["offset"], entry["length"] = version, int(write_id, 16), offset, length
    entry["hash"] = np.frombuffer(digest, "u1")
    return entry[0]  # type: ignore[no-any-return]


def block_frame(block: int, entry: np.void, bases: tuple[str, ...], block_bytes: int) -> Frame:
    """Return where the block of an entry lies, and what it must be."""
    offset, length, digest = int(entry["offset"]), int(entry["length"]), entry["hash"].tobytes()
    return Frame(block, _pack_of(entry, bases), offset, length, block_bytes, digest)


def _pack_of(entry: np.void, bases: tuple[str, ...]) -> str:
    return pack_key(bases[int(entry["base"])], int(entry["pack"]), f"{int(entry['write']):016x}")


def leaf_bytes(layout: FileLayout, number: int) -> int:
    """Return the size of leaf `number` of a layout, decompressed."""
    return min(LEAF_ENTRIES, layout.block_count - number * LEAF_ENTRIES) * ENTRY.itemsize
