"""The crash tracker finds the request that crashed its manager, by the file that survives the crash."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from teatree.contracts.formats.requests import Request, read_request
from teatree_manager.pipeline.crash_tracker import FILE_BYTES, CrashTracker

TRIES_MAX = 3


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of the file of attempts."""
    return tmp_path / "attempt.json"


def requests(*seqs: int) -> list[Request]:
    """Return requests with these numbers."""
    now = datetime.now(UTC)
    return [read_request("m", "sql", seq, now, {"Teatree-Request-Id": f"id{seq}"}, b"{}") for seq in seqs]


def ended_over(path: Path, batch: list[Request], *stuck: int) -> CrashTracker:
    """Return the tracker of the next manager after one ended itself because some requests of a batch do not end."""
    crash_tracker = CrashTracker(path, TRIES_MAX)
    crash_tracker.begin(batch)
    crash_tracker.note_stuck(requests(*stuck))
    return CrashTracker(path, TRIES_MAX)


def test_requests_before_one_that_does_not_end_are_applied_without_it(path: Path) -> None:
    """They are a batch, the request is a batch alone and known to be stuck, those behind it are the next."""
    batch = requests(1, 2, 5, 6, 7)
    crash_tracker = ended_over(path, batch, 5)
    assert crash_tracker.limit(batch) == 2
    assert [crash_tracker.is_stuck(request) for request in batch] == [False, False, True, False, False]
    crash_tracker.begin(batch[:2])
    crash_tracker.end(2)
    assert crash_tracker.limit(batch[2:]) == 1
    crash_tracker.end(5)
    assert crash_tracker.limit(batch[3:]) == 2
    assert not path.exists()


@pytest.mark.parametrize("has_begun", [False, True])
def test_a_stuck_request_is_remembered_after_another_crash(path: Path, *, has_begun: bool) -> None:
    """A manager that crashes, or leaves, before the request is answered keeps the note for the next one."""
    batch = requests(1, 2, 5)
    crash_tracker = ended_over(path, batch, 5)
    crash_tracker.begin(batch[:2])
    if not has_begun:
        crash_tracker.clear()
    crash_tracker = CrashTracker(path, TRIES_MAX)
    assert crash_tracker.is_stuck(batch[2])
    assert (crash_tracker.suspect is not None) == has_begun
    assert crash_tracker.limit(batch) == (1 if has_begun else 2)


def test_one_of_many_that_run_together_is_found_by_parts(path: Path) -> None:
    """Appends that are inserted together are treated as after a crash: they are tried in smaller parts."""
    batch = requests(*range(1, 101))
    crash_tracker = ended_over(path, batch, *range(11, 91))
    assert not any(crash_tracker.is_stuck(request) for request in batch)
    assert crash_tracker.limit(batch) == 10
    crash_tracker.begin(batch[:10])
    crash_tracker.end(10)
    assert crash_tracker.limit(batch[10:]) == 10


def test_the_number_alone_identifies_no_request(path: Path) -> None:
    """A request of the same number with another id is another request, of a log that was replaced."""
    crash_tracker = ended_over(path, requests(5), 5)
    other = read_request("m", "sql", 5, datetime.now(UTC), {"Teatree-Request-Id": "other"}, b"{}")
    assert not crash_tracker.is_stuck(other)
    crash_tracker.end(5)
    assert not path.exists()


def test_what_does_not_end_is_noted_without_room_on_the_disk(path: Path) -> None:
    """It overwrites the file, which keeps its size."""
    crash_tracker = CrashTracker(path, TRIES_MAX)
    crash_tracker.begin(requests(1, 2))
    assert path.stat().st_size == FILE_BYTES
    crash_tracker.note_stuck(requests(2))
    assert path.stat().st_size == FILE_BYTES


def test_crashes_over_one_request_are_counted(path: Path) -> None:
    """Crashes over one request are counted until they are too many; a torn file counts as none."""
    (request,) = requests(3)
    for crashes in range(TRIES_MAX):
        crash_tracker = CrashTracker(path, TRIES_MAX)
        assert crash_tracker.crashes_of(request) == 0, crashes
        crash_tracker.begin([request])
    assert CrashTracker(path, TRIES_MAX).crashes_of(request) == TRIES_MAX
    path.write_bytes(path.read_bytes()[:20])
    assert CrashTracker(path, TRIES_MAX).crashes_of(request) == 0
