"""Capture of a version: the changed blocks of the file, packed with their place and hash.

Only blocks that can have changed are read and hashed (`engine.changes`); free blocks are not packed. Runs between a
checkpoint and the next transaction. Every block is verified by DuckDB's own checksum before it is packed, so damage of
the disk is never published.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from attrs import frozen
from blake3 import blake3

from teatree.contracts.errors import CorruptError
from teatree.contracts.formats.manifest import FileLayout, ObjectRef
from teatree.engine.duckdb.block_file import BLOCK_BYTES, BlockFile
from teatree.engine.duckdb.changes import Checkpoint, Mask, changeable, read_checkpoint
from teatree.engine.duckdb.compaction import choose_relocations, scattered_leaves
from teatree.storage.versions.checksums import check_duckdb_checksum, check_duckdb_header
from teatree.storage.versions.packs import BlockTable, PackWriter, checksum, new_entry, pack_key
from teatree.storage.versions.reader import HEADER_BYTES

READ_BLOCKS = 16
"""Blocks read at once: 4 MiB."""


@frozen
class Capture:
    """One version's changed blocks in a local pack, and the block table of the whole file."""

    layout: FileLayout
    table: BlockTable
    pack: ObjectRef
    path: Path
    """The local file of the pack, until it is shipped."""
    blocks: tuple[int, ...]
    """Numbers of the blocks in the pack."""
    checkpoint: Checkpoint | None
    """The checkpoint that was captured; the next capture compares with it."""


def capture(
    database: BlockFile,
    previous: BlockTable,
    since: Checkpoint | None,
    version: int,
    write_id: str,
    folder: str,
    spool: Path,
) -> Capture:
    """Pack the blocks that differ from the `previous` version; raises `corrupt` if a changed block is damaged.

    `since` is the checkpoint of which `previous` was captured; without it every block in use is compared.
    """
    spool.mkdir(parents=True, exist_ok=True)
    key = pack_key(folder, version, write_id)
    size_bytes = database.size_bytes
    block_count = (size_bytes - HEADER_BYTES) // BLOCK_BYTES
    if HEADER_BYTES + block_count * BLOCK_BYTES != size_bytes:
        raise CorruptError(f"The file's size, {size_bytes}, is not that of whole blocks.", where=str(database.path))
    checkpoint = read_checkpoint(database)
    suspects = changeable(since, checkpoint, block_count)
    with PackWriter(spool / Path(key).name, key) as writer:
        updates: dict[int, np.void] = {}
        for index, block in _changed_blocks(database, previous, suspects):
            offset, length = writer.add(block)
            updates[index] = new_entry(version, write_id, offset, length, blake3(block).digest())
        packed = tuple(updates)
        updates |= _unused_blocks(previous, suspects, version, write_id, writer)
        if checkpoint is not None:
            updates |= _moved_blocks(
                database, previous, updates, checkpoint.used[:block_count], version, write_id, writer
            )
        table = previous.changed(block_count, updates, writer)
        header = database.read_at(0, HEADER_BYTES)
        check_duckdb_header(header, str(database.path))
        layout = FileLayout(
            size_bytes=size_bytes,
            block_bytes=BLOCK_BYTES,
            block_count=block_count,
            header=writer.add_extent(header),
            leaves=table.leaves,
            bases=table.bases,
        )
        pack = writer.finish(folder)
    return Capture(layout, table, pack, writer.path, packed, checkpoint)


def _moved_blocks(
    database: BlockFile,
    previous: BlockTable,
    changed: Mapping[int, np.void],
    used: Mask,
    version: int,
    write_id: str,
    writer: PackWriter,
) -> dict[int, np.void]:
    """Return entries of unchanged blocks that this pack takes over, and of leaves that it writes again.

    Raises `corrupt` if such a block differs from the published one.
    """
    entries = previous.entries[: len(used)]
    relocations = choose_relocations(entries, changed, used[: len(entries)])
    moved: dict[int, np.void] = {}
    for index in relocations.blocks:
        block = database.read_at(HEADER_BYTES + index * BLOCK_BYTES, BLOCK_BYTES)
        digest = blake3(block).digest()
        if digest != entries[index]["hash"].tobytes():
            raise CorruptError(
                "A block that was not written changed on the disk.", where=f"{database.path}, block {index}"
            )
        moved[index] = new_entry(version, write_id, *writer.add(block), digest)
    if relocations.unused:
        zeros = bytes(BLOCK_BYTES)
        entry = new_entry(version, write_id, *writer.add(zeros), blake3(zeros).digest())
        moved |= dict.fromkeys(relocations.unused, entry)
    leaves = scattered_leaves(previous.leaves, [*changed, *moved])
    return {block: entries[block] for block in leaves if block < len(entries)} | moved


def captured_checkpoint(database: BlockFile, layout: FileLayout) -> Checkpoint | None:
    """Return the checkpoint that a file and a version have in common, None if the file holds another one.

    The file must descend from the version; if its header is the version's too, no block in use was written since.
    """
    if checksum(database.read_at(0, HEADER_BYTES)) != layout.header.checksum:
        return None
    return read_checkpoint(database)


def _changed_blocks(database: BlockFile, previous: BlockTable, suspects: Mask) -> Iterator[tuple[int, bytes]]:
    """Yield number and bytes of the suspects that differ from the previous version, each checked."""
    known = previous.hashes
    for first, count in _runs(suspects):
        body = database.read_at(HEADER_BYTES + first * BLOCK_BYTES, count * BLOCK_BYTES)
        for place in range(count):
            index = first + place
            block = body[place * BLOCK_BYTES : (place + 1) * BLOCK_BYTES]
            if index < len(previous) and known[index].tobytes() == blake3(block).digest():
                continue
            check_duckdb_checksum(block, f"{database.path}, block {index}")
            yield index, block


def _runs(suspects: Mask) -> Iterator[tuple[int, int]]:
    """Yield (first, count) of neighbouring suspects, at most `READ_BLOCKS` at once."""
    numbers = np.flatnonzero(suspects)
    for run in np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1):
        for start in range(0, len(run), READ_BLOCKS):
            yield int(run[start]), len(run[start : start + READ_BLOCKS])


def _unused_blocks(
    previous: BlockTable, suspects: Mask, version: int, write_id: str, writer: PackWriter
) -> dict[int, np.void]:
    """Return entries for unused blocks beyond the previous version: all share one frame of zeros."""
    unused = [len(previous) + int(i) for i in np.flatnonzero(~suspects[len(previous) :])]
    if not unused:
        return {}
    zeros = bytes(BLOCK_BYTES)
    offset, length = writer.add(zeros)
    entry = new_entry(version, write_id, offset, length, blake3(zeros).digest())
    return dict.fromkeys(unused, entry)
