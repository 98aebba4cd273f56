"""The blocks that a checkpoint can have changed, computed from DuckDB's free list.

A DuckDB file is consistent whenever its process dies: no block that the newest checkpoint uses is overwritten before
the next one is complete. Until then, large transactions and the next checkpoint write into free blocks, or beyond the
end. The exception is metadata blocks, whose free pieces are filled in place. So only blocks that were free or hold
metadata can differ from one checkpoint to the next, and blocks that are free now are not read.

The cost is proportional to the change and the metadata, not to the file's size. The result is checked against DuckDB's
own count of used blocks; if the two disagree, every block is compared.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from teatree.contracts.errors import CorruptError
from teatree.engine.duckdb.block_file import BLOCK_BYTES, BlockFile
from teatree.storage.versions.checksums import HEADER_PART_BYTES, check_duckdb_checksum
from teatree.storage.versions.reader import HEADER_BYTES

_HEADER_STARTS = (HEADER_PART_BYTES, 2 * HEADER_PART_BYTES)
_HEADER = struct.Struct("<8x Qqqq Q")
"""A header part: its checksum; number of the checkpoint, catalog, free list, count of blocks, bytes of a block."""
_PIECES = 64
"""Pieces of a metadata block: each a pointer to the next one of its chain, then content."""
_PIECE_BYTES = (BLOCK_BYTES - 8) // _PIECES // 8 * 8
_POINTER = struct.Struct("<q")
_POINTER_BLOCK_BITS = 56
_POINTER_NONE = -1
_BLOCK = np.dtype("<i8")
_SHARED_BLOCK = np.dtype([("block", "<i8"), ("users", "<u4")])
_METADATA_BLOCK = np.dtype([("block", "<i8"), ("free_pieces", "<u8")])

Mask = NDArray[np.bool_]
"""One boolean per block."""


@frozen(eq=False)
class Checkpoint:
    """The newest checkpoint in a file, and the blocks that it uses."""

    number: int
    """DuckDB counts its checkpoints."""
    used: Mask
    metadata: Mask


def read_checkpoint(database: BlockFile) -> Checkpoint | None:
    """Return the newest checkpoint of a file, None if DuckDB's view of it differs from ours; raises `corrupt`.

    Call it before anything is written after the checkpoint.
    """
    try:
        checkpoint = _parse(database)
    except _NotUnderstoodError:
        return None
    rows = database.rows(
        "SELECT used_blocks FROM pragma_database_size() WHERE database_name = current_database()",
    )
    return checkpoint if rows == [(int(checkpoint.used.sum()),)] else None


def changeable(before: Checkpoint | None, now: Checkpoint | None, block_count: int) -> Mask:
    """Return which of a file's blocks can differ from their content at `before`, and are in use now."""
    if now is None:
        return np.ones(block_count, np.bool_)
    used = _resized(now.used, block_count)
    if before is None or now.number - before.number not in {0, 1}:  # a checkpoint between them was not seen
        return used
    proven = before.used & ~before.metadata
    return used & ~_resized(proven, block_count)


def check_length(database: BlockFile) -> None:
    """Check that a file holds every block that its newest checkpoint uses; raises `corrupt`.

    DuckDB opens a truncated file, and fills the gap with zeros when it writes beyond it. DuckDB's own count of blocks
    does not show the truncation: free blocks at the end are cut off in ordinary operation.
    """
    try:
        used = np.flatnonzero(_parse(database).used)
    except _NotUnderstoodError:
        return
    expected_bytes = HEADER_BYTES + (int(used[-1]) + 1 if len(used) else 0) * BLOCK_BYTES
    if database.size_bytes < expected_bytes:
        raise CorruptError(
            f"The file has {database.size_bytes} bytes; {expected_bytes} are in use.", where=str(database.path)
        )


class _NotUnderstoodError(Exception):
    """The file's layout is not the one that this module knows."""


def _parse(database: BlockFile) -> Checkpoint:
    number, free_list, count = _newest_header(database)
    content = _Reader(_chain(database, free_list, count))
    free = content.take(_BLOCK)
    content.take(_SHARED_BLOCK)
    metadata = content.take(_METADATA_BLOCK)["block"]
    used = np.ones(count, np.bool_)
    used[_valid(free, count)] = False
    holds_metadata = np.zeros(count, np.bool_)
    holds_metadata[_valid(metadata, count)] = True
    if (holds_metadata & ~used).any():
        raise _NotUnderstoodError
    return Checkpoint(number, used, holds_metadata)


def _newest_header(database: BlockFile) -> tuple[int, int, int]:
    """Return number, free list and count of blocks of the header part that is valid: the newer one."""
    parts = [database.read_at(start, HEADER_PART_BYTES) for start in _HEADER_STARTS]
    for start, part in zip(_HEADER_STARTS, parts, strict=True):
        check_duckdb_checksum(part, f"{database.path}, header at {start}")
    number, _, free_list, count, block_bytes = max(_HEADER.unpack_from(part) for part in parts)
    if block_bytes != BLOCK_BYTES or count < 0 or free_list == _POINTER_NONE:
        raise _NotUnderstoodError
    return number, free_list, count


def _chain(database: BlockFile, pointer: int, block_count: int) -> bytes:
    """Return the content of a chain of metadata pieces; checks every block that holds one."""
    blocks: dict[int, bytes] = {}
    seen: set[int] = set()
    content: list[bytes] = []
    while pointer != _POINTER_NONE:
        block, piece = pointer & ((1 << _POINTER_BLOCK_BITS) - 1), pointer >> _POINTER_BLOCK_BITS
        if pointer in seen or block >= block_count or not 0 <= piece < _PIECES:
            raise _NotUnderstoodError
        seen.add(pointer)
        if block not in blocks:
            blocks[block] = database.read_at(HEADER_BYTES + block * BLOCK_BYTES, BLOCK_BYTES)
            check_duckdb_checksum(blocks[block], f"{database.path}, block {block}")
        start = 8 + piece * _PIECE_BYTES
        (pointer,) = _POINTER.unpack_from(blocks[block], start)
        content.append(blocks[block][start + _POINTER.size : start + _PIECE_BYTES])
    return b"".join(content)


class _Reader:
    """Takes counted lists from the front of some bytes."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0

    def take(self, kind: np.dtype[Any]) -> NDArray[Any]:
        count = int.from_bytes(self._body[self._at : self._at + 8], "little")
        self._at += 8
        stop = self._at + count * kind.itemsize
        if stop > len(self._body):
            raise _NotUnderstoodError
        found = np.frombuffer(self._body[self._at : stop], kind)
        self._at = stop
        return found


def _valid(blocks: NDArray[Any], count: int) -> NDArray[np.int64]:
    numbers = blocks.astype(np.int64)
    if len(numbers) and (numbers.min() < 0 or numbers.max() >= count or len(np.unique(numbers)) != len(numbers)):
        raise _NotUnderstoodError
    return numbers


def _resized(mask: Mask, count: int) -> Mask:
    result = np.zeros(count, np.bool_)
    kept = min(count, len(mask))
    result[:kept] = mask[:kept]
    return result
