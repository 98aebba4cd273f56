"""Which ranges are read, and which blocks are read ahead, without a store."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from teatree.storage.versions.frames import Frame, plan_reads
from teatree.storage.versions.read_ahead import ReadAhead


def frame(number: int, offset: int, length: int = 100, key: str = "pack") -> Frame:
    """Return a frame."""
    return Frame(number, key, offset, length, length, b"")


def test_neighbours_share_one_read() -> None:
    """Frames with small gaps share a read; far ones and those of other objects do not."""
    frames = [frame(3, 10_000), frame(1, 0), frame(2, 150), frame(4, 0, key="other")]
    reads = list(plan_reads(frames, gap_bytes_max=50))
    assert [(r.key, r.offset, r.length) for r in reads] == [("other", 0, 100), ("pack", 0, 250), ("pack", 10_000, 100)]
    body = bytes(range(250))
    assert [reads[1].cut(body, f) for f in reads[1].frames] == [body[:100], body[150:]]


@given(st.lists(st.tuples(st.integers(0, 5_000), st.integers(1, 300), st.sampled_from("ab"))), st.integers(0, 400))
def test_every_frame_is_read_once_and_no_read_is_too_long(places: list[tuple[int, int, str]], gap: int) -> None:
    """Every frame, in any order, is in exactly one read, which is as short as possible."""
    frames = [frame(number, offset, length, key) for number, (offset, length, key) in enumerate(places)]
    reads = list(plan_reads(frames, read_bytes_max=1_000, gap_bytes_max=gap))
    found = [f for read in reads for f in read.frames]
    assert sorted(f.number for f in found) == list(range(len(frames)))
    for read in reads:
        assert read.length <= 1_000
        assert read.offset == min(f.offset for f in read.frames)
        assert read.offset + read.length == max(f.offset + f.length for f in read.frames)
        assert all(f.key == read.key for f in read.frames)


def test_a_look_up_reads_nothing_ahead() -> None:
    """Blocks without order are no scan."""
    ahead = ReadAhead(32)
    assert all(not ahead.after(block, block, 1_000) for block in (5, 900, 7, 300, 4))


def test_a_scan_is_read_ahead_by_no_more_than_it_has_read() -> None:
    """Blocks read ahead in vain never exceed those needed, and most blocks of a long scan are read ahead."""
    ahead = ReadAhead(32)
    fetched: set[int] = set()
    late = 0
    for block in range(200):
        late += block not in fetched
        wanted = ahead.after(block, block, 200)
        assert not fetched & set(wanted)
        fetched |= set(wanted)
        assert len([b for b in fetched if b > block]) <= min(block + 1, 32)
    assert late < 10
    assert max(fetched) == 199


def test_concurrent_scans_are_distinguished() -> None:
    """The scan of each thread is a separate run."""
    ahead = ReadAhead(32)
    fetched: set[int] = set()
    for step in range(20):
        for begin in (0, 1_000, 2_000):
            fetched |= set(ahead.after(begin + step, begin + step, 10_000))
    assert {b // 1_000 for b in fetched} == {0, 1, 2}
