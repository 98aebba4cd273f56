"""Which request took its manager down, by the file that outlives it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from teatree.contracts.requests import Request, read_request
from teatree_manager.attempts import FILE_BYTES, Attempts

TRIES_MAX = 3


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the file of attempts lies."""
    return tmp_path / "attempt.json"


def requests(*seqs: int) -> list[Request]:
    """Return requests with these numbers."""
    now = datetime.now(UTC)
    return [read_request("m", "sql", seq, now, {"Teatree-Request-Id": f"id{seq}"}, b"{}") for seq in seqs]


def ended_over(path: Path, batch: list[Request], *stuck: int) -> Attempts:
    """Return what the next manager knows after one ended itself over some of a batch."""
    attempts = Attempts(path, TRIES_MAX)
    attempts.begin(batch)
    attempts.note_stuck(requests(*stuck))
    return Attempts(path, TRIES_MAX)


def test_those_before_a_request_that_does_not_end_are_applied_without_it(path: Path) -> None:
    """They are a batch, the request is one of its own and known for what it is, those behind it are the next."""
    batch = requests(1, 2, 5, 6, 7)
    attempts = ended_over(path, batch, 5)
    assert attempts.limit(batch) == 2
    assert [attempts.is_stuck(request) for request in batch] == [False, False, True, False, False]
    attempts.begin(batch[:2])
    attempts.end(2)
    assert attempts.limit(batch[2:]) == 1
    attempts.end(5)
    assert attempts.limit(batch[3:]) == 2
    assert not path.exists()


@pytest.mark.parametrize("has_begun", [False, True])
def test_it_is_remembered_over_another_death(path: Path, *, has_begun: bool) -> None:
    """A manager that dies, or leaves, before the request is answered leaves the next one as wise."""
    batch = requests(1, 2, 5)
    attempts = ended_over(path, batch, 5)
    attempts.begin(batch[:2])
    if not has_begun:
        attempts.clear()
    attempts = Attempts(path, TRIES_MAX)
    assert attempts.is_stuck(batch[2])
    assert (attempts.suspect is not None) == has_begun
    assert attempts.limit(batch) == (1 if has_begun else 2)


def test_one_of_many_that_run_together_is_found_by_parts(path: Path) -> None:
    """Appends that are inserted together are no more guilty than after a death: they are tried in smaller parts."""
    batch = requests(*range(1, 101))
    attempts = ended_over(path, batch, *range(11, 91))
    assert not any(attempts.is_stuck(request) for request in batch)
    assert attempts.limit(batch) == 10
    attempts.begin(batch[:10])
    attempts.end(10)
    assert attempts.limit(batch[10:]) == 10


def test_the_number_alone_says_nothing_in_another_log(path: Path) -> None:
    """A request of the same number with another id is another request, of a log that was replaced."""
    attempts = ended_over(path, requests(5), 5)
    other = read_request("m", "sql", 5, datetime.now(UTC), {"Teatree-Request-Id": "other"}, b"{}")
    assert not attempts.is_stuck(other)
    attempts.end(5)
    assert not path.exists()


def test_what_does_not_end_is_noted_without_room_on_the_disk(path: Path) -> None:
    """It is written over what was there: the file keeps its size."""
    attempts = Attempts(path, TRIES_MAX)
    attempts.begin(requests(1, 2))
    assert path.stat().st_size == FILE_BYTES
    attempts.note_stuck(requests(2))
    assert path.stat().st_size == FILE_BYTES


def test_a_request_that_kills_alone_is_counted(path: Path) -> None:
    """Deaths without a word are counted until they are too many; a torn file says nothing."""
    (request,) = requests(3)
    for deaths in range(TRIES_MAX):
        attempts = Attempts(path, TRIES_MAX)
        assert attempts.deaths_of(request) == 0, deaths
        attempts.begin([request])
    assert Attempts(path, TRIES_MAX).deaths_of(request) == TRIES_MAX
    path.write_bytes(path.read_bytes()[:20])
    assert Attempts(path, TRIES_MAX).deaths_of(request) == 0
