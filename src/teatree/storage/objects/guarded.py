"""A store behind a circuit breaker: while it is unavailable, calls fail at once, except one that probes it."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from attrs import frozen
from typing_extensions import override

from teatree.contracts.clock import SYSTEM_CLOCK, Clock
from teatree.storage.breaker import Breaker
from teatree.storage.objects.base import ObjectInfo, ObjectStore

T = TypeVar("T")


@frozen
class SlowCall:
    """A call that has not returned."""

    seconds: float
    what: str


# More than ten public methods: those of `ObjectStore`.
class GuardedStore(ObjectStore):
    """Any store, called through a circuit breaker; results and errors of admitted calls are the store's own."""

    def __init__(self, store: ObjectStore, breaker: Breaker, clock: Clock = SYSTEM_CLOCK) -> None:
        self._store = store
        self._clock = clock
        self._breaker = breaker
        self._running: dict[int, tuple[float, str]] = {}
        """Calls that have not returned: since when, by the monotonic clock, and what each does."""

    def slowest(self) -> SlowCall | None:
        """Return the call that has been running for the longest; None if none is."""
        running = min(self._running.copy().values(), default=None)
        return None if running is None else SlowCall(self._clock.monotonic() - running[0], running[1])

    @contextmanager
    def _call(self, what: str) -> Iterator[None]:
        with self._breaker.guard():
            call = threading.get_ident()
            self._running[call] = (self._clock.monotonic(), what)
            try:
                yield
            finally:
                del self._running[call]

    @property
    @override
    def url(self) -> str:
        return self._store.url

    @override
    def is_made(self) -> bool:
        return self._store.is_made()

    @override
    def get(self, key: str) -> bytes:
        with self._call(f"read {key}"):
            return self._store.get(key)

    @override
    def get_range(self, key: str, offset: int, length: int) -> bytes:
        with self._call(f"read {key}"):
            return self._store.get_range(key, offset, length)

    @override
    def stream(self, key: str) -> Iterator[bytes]:
        return self._each(self._store.stream(key), f"read {key}")

    @override
    def put(self, key: str, body: bytes | Path) -> None:
        with self._call(f"write {key}"):
            self._store.put(key, body)

    @override
    def put_if_absent(self, key: str, body: bytes | Path) -> bool:
        with self._call(f"create {key}"):
            return self._store.put_if_absent(key, body)

    @override
    def head(self, key: str) -> ObjectInfo | None:
        with self._call(f"look at {key}"):
            return self._store.head(key)

    @override
    def present(self, keys: Sequence[str]) -> Sequence[str]:
        with self._call("list"):
            return self._store.present(keys)

    @override
    def list(self, prefix: str, start_after: str = "") -> Iterator[ObjectInfo]:
        return self._each(self._store.list(prefix, start_after), f"list {prefix}")

    @override
    def delete(self, keys: Iterable[str]) -> None:
        with self._call("delete"):
            self._store.delete(keys)

    def _each(self, found: Iterator[T], what: str) -> Iterator[T]:
        """Yield what is found; each step is a call, so that a slow consumer does not count as a slow call."""
        while True:
            with self._call(what):
                one = next(found, None)
            if one is None:
                return
            yield one
