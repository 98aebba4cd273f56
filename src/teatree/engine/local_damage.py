"""Finding damage in local version files: their blocks as they lie on the disk, held against a block table."""

from __future__ import annotations

import os

from blake3 import blake3

from teatree.engine.block_file import BLOCK_BYTES
from teatree.storage.packs import BlockTable


def read_from_disk(descriptor: int, offset: int, length: int) -> bytes:
    """Return bytes of a file from its disk, where the system lets us say so: memory may hold them as they once were."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, offset, length, os.POSIX_FADV_DONTNEED)
    return os.pread(descriptor, length, offset)


def damaged_block(body: bytes, table: BlockTable, first: int, last: int) -> int | None:
    """Return the first of the blocks `first` to before `last` that is not what the table says; `body` holds them."""
    for place, index in enumerate(range(first, last)):
        block = body[place * BLOCK_BYTES : (place + 1) * BLOCK_BYTES]
        if blake3(block).digest() != table.entries[index]["hash"].tobytes():
            return index
    return None
