"""Detection of damage in local version files: their blocks on the disk, compared with a block table."""

from __future__ import annotations

import os

from blake3 import blake3

from teatree.engine.duckdb.block_file import BLOCK_BYTES
from teatree.storage.versions.packs import BlockTable


def read_from_disk(descriptor: int, offset: int, length: int) -> bytes:
    """Return bytes of a file from its disk, bypassing the page cache where the system allows: it may hide damage."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, offset, length, os.POSIX_FADV_DONTNEED)
    return os.pread(descriptor, length, offset)


def damaged_block(body: bytes, table: BlockTable, first: int, last: int) -> int | None:
    """Return the first of the blocks `first` to `last` - 1, given in `body`, whose hash differs from the table's."""
    for place, index in enumerate(range(first, last)):
        block = body[place * BLOCK_BYTES : (place + 1) * BLOCK_BYTES]
        if blake3(block).digest() != table.entries[index]["hash"].tobytes():
            return index
    return None
