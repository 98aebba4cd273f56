"""When a crashed server is started again."""

from __future__ import annotations

from teatree.embedded.restarts import Restarts


def test_a_first_crash_is_followed_by_a_start_almost_at_once() -> None:
    """One crash costs a tenth of a second."""
    state = Restarts(started_s=0).after_exit(5)
    assert state.due_s is not None
    assert state.due_s - 5 <= 0.1


def test_waits_double_up_to_half_a_minute_while_it_keeps_crashing() -> None:
    """A server that keeps failing costs little CPU, and is tried again without end."""
    state, now, waits = Restarts(started_s=0), 0.0, []
    for _ in range(12):
        state = state.after_exit(now)
        waits.append(state.wait_s)
        assert state.due_s is not None
        now = state.due_s
        state = state.after_start(now)
        now += 1
    assert waits[:4] == [0.1, 0.2, 0.4, 0.8]
    assert waits[-1] == 30


def test_a_start_that_fails_counts_as_a_crash() -> None:
    """Failed starts are spaced out like crashes, however long they took."""
    state = Restarts(started_s=0).after_exit(0).after_exit(100)
    assert state.wait_s == 0.2


def test_a_long_run_resets_the_wait() -> None:
    """A server that ran for a minute is started again at once when it crashes."""
    state = Restarts(started_s=0)
    for now in (1, 2, 3):
        state = state.after_exit(now).after_start(now)
    assert state.after_exit(100).wait_s == 0.1
