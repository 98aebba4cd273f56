"""Frames of a pack: what was written comes back, and anything else is damage."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from teatree.contracts.errors import CorruptError
from teatree.storage.versions.frames import unpack
from teatree.storage.versions.packs import PackWriter


def frame_of(path: Path, piece: bytes) -> bytes:
    """Return the frame that a pack holds of one piece."""
    with PackWriter(path / "pack", "m/packs/1") as writer:
        offset, length = writer.add(piece)
    return (path / "pack").read_bytes()[offset : offset + length]


PIECES = [b"", b"x", b"ab" * 100, bytes(range(256)) * 2, b"q" * 65_791, b"q" * 65_792, bytes(262_144)]


@pytest.mark.parametrize("piece", PIECES, ids=len)
def test_a_piece_comes_back(tmp_path: Path, piece: bytes) -> None:
    """Each size of a piece, whose header has another width, is read as it was written, and as no other size."""
    frame = frame_of(tmp_path, piece)
    assert unpack(frame, len(piece), "x") == piece
    for size_bytes in {len(piece) - 1, len(piece) + 1, 2 * len(piece) + 3, 2**62}:
        with pytest.raises(CorruptError):
            unpack(frame, size_bytes, "x")


@given(piece=st.binary(max_size=400), end=st.integers(0, 500))
def test_a_part_of_a_frame_is_damage(piece: bytes, end: int) -> None:
    """A frame that ends early is damaged, wherever it ends."""
    frame = pa.Codec("zstd").compress(piece, asbytes=True)
    with pytest.raises(CorruptError):
        unpack(frame[: min(end, len(frame) - 1)], len(piece), "x")


def test_bytes_beside_a_frame_are_damage(tmp_path: Path) -> None:
    """A second frame, other bytes after it, and a frame to skip before it are no part of a frame."""
    piece = b"ab" * 100
    frame = frame_of(tmp_path, piece)
    skipped = b"\x50\x2a\x4d\x18\x04\0\0\0abcd"
    for damaged in (frame + frame, frame + b"\0", skipped + frame, b"", b"abc" * 40):
        for size_bytes in (0, len(piece), 2 * len(piece)):
            with pytest.raises(CorruptError):
                unpack(damaged, size_bytes, "x")


def test_a_frame_without_its_size_is_damage() -> None:
    """A frame must name its size: one that does not was not written here."""
    with pytest.raises(CorruptError):
        unpack(b"\x28\xb5\x2f\xfd\x00\x58\x09\x00\x00a", 1, "x")
