"""Range reads: frames of packs that lie near each other are fetched by one request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Generic, Protocol, TypeVar

from attrs import frozen

READ_BYTES_MAX = 16_000_000
"""Bytes of one range read: long enough to hide the round trip, short enough to hold several in memory."""
READ_GAP_BYTES_MAX = 128_000
"""Bytes between two wanted frames that are read along rather than asked for separately."""


class Span(Protocol):
    """A piece of an object."""

    @property
    def key(self) -> str:
        """The object."""

    @property
    def offset(self) -> int:
        """Its first byte."""

    @property
    def length(self) -> int:
        """Its bytes."""


T = TypeVar("T", bound=Span)


@frozen
class RangeRead(Generic[T]):
    """Neighbouring frames of one object."""

    key: str
    offset: int
    length: int
    frames: tuple[T, ...]

    def cut(self, body: bytes, frame: T) -> bytes:
        """Return a frame's bytes out of the `body` that was read."""
        start = frame.offset - self.offset
        return body[start : start + frame.length]


def plan_reads(
    frames: Iterable[T], read_bytes_max: int = READ_BYTES_MAX, gap_bytes_max: int = READ_GAP_BYTES_MAX
) -> Iterator[RangeRead[T]]:
    """Yield the range reads that fetch all frames, in the order in which they lie."""
    run: list[T] = []
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
