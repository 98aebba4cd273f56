"""The circuit breaker around the object store and PostgreSQL, with a manual clock."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from event_logs import captured_events
from manual_clock import ManualClock
from servers import file_store
from teatree.contracts.errors import Code, CorruptError, OperatorError, RetryError, TeatreeError
from teatree.contracts.settings import BreakerSettings
from teatree.storage.breaker import Breaker, CircuitOpenError
from teatree.storage.objects.base import NotFoundError, ObjectStore
from teatree.storage.objects.guarded import GuardedStore
from teatree.storage.objects.local import LocalObjectStore
from teatree.storage.objects.stores import open_store

SETTINGS = BreakerSettings(failures_max=3, open_ms_min=100, open_ms_max=3_000)
NO_ANSWER = RetryError(Code.UNAVAILABLE, "No answer.")


@pytest.fixture
def clock() -> ManualClock:
    """Return a clock that the test moves."""
    return ManualClock()


@pytest.fixture
def breaker(clock: ManualClock) -> Breaker:
    """Return a closed breaker."""
    return Breaker("The sea", SETTINGS, clock)


def _fail(breaker: Breaker, error: BaseException = NO_ANSWER, **options: Any) -> None:
    """Let one call fail; the error shows whether it was refused."""
    with breaker.guard(**options):
        raise error


def _open(breaker: Breaker) -> None:
    for _ in range(SETTINGS.failures_max):
        with pytest.raises(RetryError):
            _fail(breaker)


def _refused(breaker: Breaker) -> bool:
    """Return whether a call is refused; one that is let through succeeds."""
    try:
        with breaker.guard():
            return False
    except CircuitOpenError:
        return True


def test_a_few_failures_in_a_row_open_it(breaker: Breaker) -> None:
    """A lost connection is raised unchanged; after several in a row, by any callers, the next call is refused."""
    for _ in range(4):
        for _ in range(SETTINGS.failures_max - 1):
            with pytest.raises(RetryError) as caught:
                _fail(breaker)
            assert caught.value is NO_ANSWER
        assert not _refused(breaker)
    _open(breaker)
    assert _refused(breaker)


def test_a_refusal_names_part_error_and_pause(breaker: Breaker) -> None:
    """The error of a refused call has the failure's code and names the part, its error and the time of the next try."""
    _open(breaker)
    with pytest.raises(RetryError) as caught:
        _fail(breaker)
    assert caught.value.code is Code.UNAVAILABLE
    assert str(caught.value) == (
        "unavailable: The sea is unavailable: No answer. It is tried again at least every 3 s."
    )


def test_all_get_the_same_message_while_it_is_unavailable(breaker: Breaker, clock: ManualClock) -> None:
    """Refused calls and failed probes raise the same message, so that callers log it once."""
    _open(breaker)
    messages = set()
    for i in range(10):
        clock.now_s += 1
        with pytest.raises(CircuitOpenError) as caught:
            _fail(breaker, RetryError(Code.UNAVAILABLE, f"No answer {i}."))
        messages.add(str(caught.value))
    assert len(messages) == 1


@pytest.mark.parametrize(
    "answer",
    [
        NotFoundError("k", "file:///s"),
        CorruptError("Not what was written."),
        RetryError(Code.DISK_FULL, "No room."),
        RetryError(Code.TIMED_OUT, "A lock."),
        OperatorError(Code.NOT_AUTHORIZED, "No."),
    ],
)
def test_an_answer_is_no_failure(breaker: Breaker, clock: ManualClock, answer: TeatreeError) -> None:
    """An error that the part returns shows that it is available: it never opens the breaker, and closes it."""
    for _ in range(2 * SETTINGS.failures_max):
        with pytest.raises(type(answer)) as caught:
            _fail(breaker, answer)
        assert caught.value is answer
    _open(breaker)
    clock.now_s += 3
    with pytest.raises(type(answer)):
        _fail(breaker, answer)
    assert not breaker.refuses()


def test_the_pauses_grow_with_jitter_up_to_a_limit(breaker: Breaker, clock: ManualClock) -> None:
    """Pauses between probes grow up to the limit, and two breakers probe at different times."""
    random.seed(1)
    pauses_ms = []
    _open(breaker)
    for _ in range(12):
        begin_s = clock.now_s
        while breaker.refuses():
            clock.now_s += 0.001
        pauses_ms.append((clock.now_s - begin_s) * 1000)
        with pytest.raises(CircuitOpenError):
            _fail(breaker)
    for i, pause_ms in enumerate(pauses_ms):
        limit_ms = min(SETTINGS.open_ms_max, SETTINGS.open_ms_min * 2**i)
        assert limit_ms / 2 - 1 <= pause_ms <= limit_ms + 1
    assert len({round(pause_ms) for pause_ms in pauses_ms[5:]}) > 1


def test_one_probes_and_the_others_are_refused(breaker: Breaker, clock: ManualClock) -> None:
    """After the pause one call is let through as a probe; others are refused until it succeeds."""
    _open(breaker)
    clock.now_s += 3
    with breaker.guard():
        assert _refused(breaker)
        assert _refused(breaker)
    assert not _refused(breaker)
    with pytest.raises(RetryError) as caught:
        _fail(breaker)
    assert caught.value is NO_ANSWER  # the count starts again


def test_a_probe_that_hangs_is_followed_by_another(breaker: Breaker, clock: ManualClock) -> None:
    """A probe without an answer is followed by another after the longest pause, whose success closes the breaker."""
    _open(breaker)
    clock.now_s += 3
    with breaker.guard():
        clock.now_s += 2.9
        assert _refused(breaker)
        clock.now_s += 0.2
        with breaker.guard():
            assert _refused(breaker)
        assert not _refused(breaker)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), GeneratorExit(), ValueError("a fault of ours")])
def test_a_probe_without_a_result_is_repeated(breaker: Breaker, clock: ManualClock, error: BaseException) -> None:
    """A cancelled probe neither closes nor opens the breaker: the next call is the probe."""
    _open(breaker)
    clock.now_s += 3
    with pytest.raises(type(error)):
        _fail(breaker, error)
    with breaker.guard():
        assert _refused(breaker)


def test_some_calls_are_never_refused(breaker: Breaker) -> None:
    """A call with `always` is tried at any time; its success closes the breaker, its failures delay no probe."""
    _open(breaker)
    assert breaker.refuses()
    with pytest.raises(CircuitOpenError):
        _fail(breaker, always=True)
    with breaker.guard(always=True):
        assert _refused(breaker)
    assert not _refused(breaker)


def test_a_success_from_before_closes_and_a_failure_does_not_count(breaker: Breaker, clock: ManualClock) -> None:
    """Of calls that began before it opened, a success closes it, and a failure delays no probe."""
    before = [breaker.guard() for _ in range(6)]
    for call in before:
        call.__enter__()
    _open(breaker)
    for call in before[:5]:
        with pytest.raises(CircuitOpenError):
            call.__exit__(type(NO_ANSWER), NO_ANSWER, None)
    clock.now_s += SETTINGS.open_ms_min / 1000
    assert not breaker.refuses()
    before[5].__exit__(None, None, None)
    assert not _refused(breaker)


def test_opening_and_closing_are_logged_once(clock: ManualClock) -> None:
    """One line is logged when a part becomes unavailable, with its error, and one with the duration when it is back."""
    with captured_events() as logs:
        breaker = Breaker("The sea", SETTINGS, clock)
        _open(breaker)
        for _ in range(4):
            clock.now_s += 3
            with pytest.raises(CircuitOpenError):
                _fail(breaker)
        clock.now_s += 3
        assert not _refused(breaker)
        assert not _refused(breaker)
    assert logs == [
        {
            "event": "unavailable: calls are refused until it answers",
            "log_level": "warning",
            "what": "The sea",
            "error": "unavailable: No answer.",
        },
        {"event": "available again", "log_level": "info", "what": "The sea", "unavailable_ms": 15_000},
    ]


def test_every_call_of_a_store_is_guarded(breaker: Breaker, clock: ManualClock, tmp_path: Path) -> None:
    """Every call of a store that is known to be unavailable is refused without a try, and made when it is back."""
    store = open_store(file_store(tmp_path / "store"))
    store.put("a/1", b"one")
    guarded = GuardedStore(store, breaker)
    copy = tmp_path / "copy"
    calls: dict[str, Callable[[], Any]] = {
        "get": lambda: guarded.get("a/1"),
        "get_range": lambda: guarded.get_range("a/1", 0, 1),
        "stream": lambda: list(guarded.stream("a/1")),
        "download": lambda: guarded.download("a/1", copy),
        "put": lambda: guarded.put("a/2", b"two"),
        "put_if_absent": lambda: guarded.put_if_absent("a/3", b"three"),
        "head": lambda: guarded.head("a/1"),
        "list": lambda: [info.key for info in guarded.list("a/")],
        "delete": lambda: guarded.delete(["a/1"]),
        "present": lambda: guarded.present(["a/1"]),
    }
    local = {"url", "is_made"}
    assert set(calls) == {name for name in vars(ObjectStore) if not name.startswith("_")} - local
    _open(breaker)
    for call in calls.values():
        with pytest.raises(CircuitOpenError):
            call()
    assert [info.key for info in store.list("")] == ["a/1"]
    assert not copy.exists()
    clock.now_s += 3
    found = {name: call() for name, call in calls.items()}
    assert (found["get"], found["stream"], copy.read_bytes()) == (b"one", [b"one"], b"one")
    assert found["list"] == ["a/1", "a/2", "a/3"]
    assert [info.key for info in store.list("")] == ["a/2", "a/3"]


def test_a_guarded_store_knows_its_slowest_call(tmp_path: Path) -> None:
    """A call that does not return is reported with its key while it runs, also one of a list."""
    entered, leave = threading.Event(), threading.Event()

    class SlowStore(LocalObjectStore):
        def get(self, key: str) -> bytes:
            entered.set()
            leave.wait()
            return key.encode()

    store = GuardedStore(SlowStore(tmp_path), Breaker("The object store", BreakerSettings()))
    assert store.slowest() is None
    thread = threading.Thread(target=store.get, args=("a/b",))
    thread.start()
    entered.wait()
    slow = store.slowest()
    assert slow is not None
    assert (slow.what, slow.seconds >= 0) == ("read a/b", True)
    leave.set()
    thread.join()
    assert store.slowest() is None
