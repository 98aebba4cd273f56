"""Capturing a version: which blocks of the file changed, packed with their place and hash.

Runs between a checkpoint and the next transaction. Every block is verified by DuckDB's own checksum before it is
packed: what the disk damaged is never published.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from attrs import frozen
from blake3 import blake3

from teatree.contracts.errors import CorruptError
from teatree.contracts.manifest import FileLayout, ObjectRef
from teatree.engine.database import BLOCK_BYTES, Database
from teatree.storage.packs import BlockTable, PackWriter, new_entry, pack_key
from teatree.storage.versions import HEADER_BYTES

_HEADER_PART_BYTES = 4_096
_CHECKSUM_FACTOR = np.uint64(0xBF58476D1CE4E5B9)
_CHECKSUM_SEED = 5381
READ_BLOCKS = 16
"""Blocks read at once: 4 MiB."""


@frozen
class Capture:
    """One version's changed bytes in a local pack, and the block table with which they make the file."""

    layout: FileLayout
    table: BlockTable
    pack: ObjectRef
    path: Path
    """Where the pack lies until it is shipped."""
    blocks: tuple[int, ...]
    """Numbers of the blocks in the pack."""


def capture(database: Database, previous: BlockTable, version: int, write_id: str, folder: str, spool: Path) -> Capture:
    """Pack what differs from the `previous` version; raises `corrupt` if a changed block is damaged."""
    spool.mkdir(parents=True, exist_ok=True)
    key = pack_key(folder, version, write_id)
    size_bytes = database.size_bytes
    block_count = (size_bytes - HEADER_BYTES) // BLOCK_BYTES
    if HEADER_BYTES + block_count * BLOCK_BYTES != size_bytes:
        raise CorruptError(f"The file's size, {size_bytes}, is not that of whole blocks.", where=str(database.path))
    with PackWriter(spool / Path(key).name, key) as writer:
        updates = _pack_changed_blocks(database, previous, block_count, version, write_id, writer)
        table = previous.changed(block_count, updates, writer)
        header = database.read_at(0, HEADER_BYTES)
        for start in range(0, HEADER_BYTES, _HEADER_PART_BYTES):
            check_duckdb_checksum(header[start : start + _HEADER_PART_BYTES], f"{database.path}, header at {start}")
        layout = FileLayout(
            size_bytes=size_bytes,
            block_bytes=BLOCK_BYTES,
            block_count=block_count,
            header=writer.add_extent(header),
            leaves=table.leaves,
            bases=table.bases,
        )
        pack = writer.finish(folder)
    return Capture(layout, table, pack, writer.path, tuple(sorted(updates)))


def _pack_changed_blocks(
    database: Database, previous: BlockTable, block_count: int, version: int, write_id: str, writer: PackWriter
) -> dict[int, np.void]:
    updates: dict[int, np.void] = {}
    known = previous.entries["hash"]
    for first in range(0, block_count, READ_BLOCKS):
        count = min(READ_BLOCKS, block_count - first)
        body = database.read_at(HEADER_BYTES + first * BLOCK_BYTES, count * BLOCK_BYTES)
        for place in range(count):
            index = first + place
            block = body[place * BLOCK_BYTES : (place + 1) * BLOCK_BYTES]
            digest = blake3(block).digest()
            if index < len(previous) and known[index].tobytes() == digest:
                continue
            check_duckdb_checksum(block, f"{database.path}, block {index}")
            offset, length = writer.add(block)
            updates[index] = new_entry(version, write_id, offset, length, digest)
    return updates


def check_duckdb_checksum(piece: bytes, where: str) -> None:
    """Check the 8-byte checksum at the front of a block or header part; raises `corrupt`.

    The method is DuckDB's: xor over the 64-bit words that follow, each times a constant, and a seed. A piece that was
    never written (all zeros) passes.
    """
    words = np.frombuffer(piece, "<u8")
    expected = int(words[0])
    found = int(np.bitwise_xor.reduce(words[1:] * _CHECKSUM_FACTOR)) ^ _CHECKSUM_SEED
    if found != expected and words.any():
        raise CorruptError("The block does not match DuckDB's own checksum.", where=where)
