"""DuckDB's own checksum, at the front of every block and header part of its files."""

from __future__ import annotations

import numpy as np

from teatree.contracts.errors import CorruptError

HEADER_PART_BYTES = 4_096
"""Bytes of each part of a file's header."""
_FACTOR = np.uint64(0xBF58476D1CE4E5B9)
_SEED = 5381


def check_duckdb_header(header: bytes, where: str) -> None:
    """Check the parts of a file's header, each against its checksum; raises `corrupt`."""
    for start in range(0, len(header), HEADER_PART_BYTES):
        check_duckdb_checksum(header[start : start + HEADER_PART_BYTES], f"{where}, header at {start}")


def check_duckdb_checksum(piece: bytes, where: str) -> None:
    """Check the 8-byte checksum at the front of a block or header part; raises `corrupt`.

    The method is DuckDB's: xor over the 64-bit words that follow, each times a constant, and a seed. A piece that was
    never written (all zeros) passes.
    """
    words = np.frombuffer(piece, "<u8")
    expected = int(words[0])
    found = int(np.bitwise_xor.reduce(words[1:] * _FACTOR)) ^ _SEED
    if found != expected and words.any():
        raise CorruptError("The block does not match DuckDB's own checksum.", where=where)
