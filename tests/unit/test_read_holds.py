"""Statements and clients whose reads had to be killed are held off for a time; no others are."""

from __future__ import annotations

import pytest

from teatree.contracts.errors import Code, RetryError
from teatree.contracts.read_settings import ReadSettings
from teatree_manager.read_workers import holds as read_holds
from teatree_manager.read_workers.holds import ReadHolds

SETTINGS = ReadSettings(
    statement_kills_max=2, client_kills_max=4, kills_window_ms=10_000, hold_ms_min=1_000, hold_ms_max=3_000
)


def is_held(holds: ReadHolds, client: str, statement: str, now_ms: float) -> bool:
    """Return whether a read is refused."""
    try:
        holds.check(client, statement, now_ms)
    except RetryError as e:
        return e.code is Code.HELD_OFF
    return False


def test_a_statement_is_held_off_alone() -> None:
    """Its client's other statements are answered, and the statement is refused to everyone."""
    holds = ReadHolds(SETTINGS)
    holds.killed("a", "bad", 0)
    assert not is_held(holds, "a", "bad", 1)
    holds.killed("a", "bad", 1)
    assert is_held(holds, "a", "bad", 2)
    assert is_held(holds, "b", "bad", 2)
    assert not is_held(holds, "a", "good", 2)
    assert not is_held(holds, "a", "bad", 1_001)


def test_a_client_is_held_off_with_many_bad_statements() -> None:
    """All its statements are refused, others' are not."""
    holds = ReadHolds(SETTINGS)
    for number in range(4):
        holds.killed("a", f"bad {number}", 0)
    assert is_held(holds, "a", "good", 1)
    assert not is_held(holds, "b", "good", 1)
    assert not is_held(holds, "b", "bad 1", 1)


def test_the_time_grows_up_to_a_limit_and_is_forgotten() -> None:
    """Each further kill doubles it; kills of long ago do not count."""
    holds = ReadHolds(SETTINGS)
    held_ms = []
    for now_ms in (0, 1, 1_100, 3_200, 6_300):
        holds.killed("a", "bad", now_ms)
        held_ms.append(next(ms for ms in range(0, 10_000, 100) if not is_held(holds, "b", "bad", now_ms + ms)))
    assert held_ms == [0, 1_000, 2_000, 3_000, 3_000]
    holds.killed("a", "bad", 30_000)
    assert not is_held(holds, "b", "bad", 30_001)


def test_the_error_names_the_end_of_the_hold() -> None:
    """The sender of the read can act on it."""
    holds = ReadHolds(SETTINGS)
    for _ in range(2):
        holds.killed("a", "bad", 0)
    with pytest.raises(RetryError, match=r"2 reads of this statement had to be killed; it is held off until 2\d\d\d-"):
        holds.check("a", "bad", 1)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest records are dropped."""
    monkeypatch.setattr(read_holds, "REMEMBERED_MAX", 10)
    holds = ReadHolds(SETTINGS)
    for number in range(100):
        holds.killed(f"client {number}", f"bad {number}", 0)
    assert len(holds._records) == 10
