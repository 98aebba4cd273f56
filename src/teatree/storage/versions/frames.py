"""Frames: the compressed pieces of packs, fetched and verified in one place.

Blocks, leaves of the block table and headers are described as `Frame`s. Those that lie near each other are read by one
request (`plan_reads`), and `fetch` returns nothing that does not match its hash.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa
from attrs import frozen
from blake3 import blake3

from teatree.contracts.errors import CorruptError
from teatree.storage.objects.base import ObjectStore
from teatree.storage.reread import reread

READ_BYTES_MAX = 16_000_000
"""Bytes of one range read: long enough to hide the round trip, short enough to hold several in memory."""
READ_GAP_BYTES_MAX = 128_000
"""Bytes between two wanted frames that are read along rather than asked for separately."""
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


@frozen
class Frame:
    """Where a piece lies, and what it must be."""

    number: int
    """Its place among the pieces of its kind, such as the block's in its file."""
    key: str
    """The pack."""
    offset: int
    length: int
    size_bytes: int
    """Decompressed."""
    digest: bytes
    """blake3 of the piece."""
    kind: str = "block"

    @property
    def where(self) -> str:
        """The place, as errors name it."""
        return f"{self.key}, {self.kind} {self.number}"

    def unpacked(self, body: bytes) -> bytes:
        """Return the piece in its frame; raises `corrupt` if it is not the one that is wanted."""
        piece = unpack(body, self.size_bytes, self.where)
        if blake3(piece).digest() != self.digest:
            raise CorruptError(f"The {self.kind} does not match its hash.", where=self.where)
        return piece


@frozen
class RangeRead:
    """Neighbouring frames of one object."""

    key: str
    offset: int
    length: int
    frames: tuple[Frame, ...]

    def cut(self, body: bytes, frame: Frame) -> bytes:
        """Return a frame's bytes out of the `body` that was read."""
        start = frame.offset - self.offset
        return body[start : start + frame.length]


def plan_reads(
    frames: Iterable[Frame], read_bytes_max: int = READ_BYTES_MAX, gap_bytes_max: int = READ_GAP_BYTES_MAX
) -> Iterator[RangeRead]:
    """Yield the range reads that fetch all frames, in the order in which they lie."""
    run: list[Frame] = []
    start = end = 0
    for frame in sorted(frames, key=lambda f: (f.key, f.offset)):
        stop = frame.offset + frame.length
        near = bool(run) and frame.key == run[0].key and frame.offset - end <= gap_bytes_max
        if near and stop - start <= read_bytes_max:
            run.append(frame)
            end = max(end, stop)
            continue
        if run:
            yield RangeRead(run[0].key, start, end - start, tuple(run))
        run, start, end = [frame], frame.offset, stop
    if run:
        yield RangeRead(run[0].key, start, end - start, tuple(run))


def fetch(store: ObjectStore, read: RangeRead) -> list[tuple[Frame, bytes]]:
    """Return the frames of one range read with their pieces; raises `corrupt`, `not_found` or what the store raises."""

    def fetch_once() -> list[tuple[Frame, bytes]]:
        body = store.get_range(read.key, read.offset, read.length)
        return [(frame, frame.unpacked(read.cut(body, frame))) for frame in read.frames]

    return reread(fetch_once)


def unpack(frame: bytes, size_bytes: int, where: str) -> bytes:
    """Return the piece in a zstd frame of a pack; raises `corrupt` if it is damaged or not `size_bytes` long."""
    found = _content_bytes(frame)
    if found is None:
        raise CorruptError("A frame of a pack is damaged: its header is not one of zstd with a size.", where=where)
    if found != size_bytes:  # also before memory is taken for a size that a damaged manifest names
        raise CorruptError(f"A frame holds {found} bytes instead of {size_bytes}.", where=where)
    try:
        body: bytes = pa.Codec("zstd").decompress(frame, size_bytes, asbytes=True)
    except OSError as e:
        raise CorruptError(f"A frame of a pack is damaged: {e}", where=where) from e
    return body


def _content_bytes(frame: bytes) -> int | None:
    """Return the size that a zstd frame's header names (RFC 8878, 3.1.1.1); None if it is no such header."""
    if not frame.startswith(_ZSTD_MAGIC) or len(frame) < 6:
        return None
    descriptor = frame[4]
    is_single = bool(descriptor & 0x20)
    size_code = descriptor >> 6
    width = (1 if is_single else 0, 2, 4, 8)[size_code]
    begin = 5 + (not is_single) + (0, 1, 2, 4)[descriptor & 3]
    size = frame[begin : begin + width]
    if not width or len(size) < width:
        return None
    return int.from_bytes(size, "little") + (256 if size_code == 1 else 0)
