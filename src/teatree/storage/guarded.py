"""A store behind a breaker: while it is away, calls fail at once but for the one that looks whether it is back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from typing_extensions import override

from teatree.storage.breaker import Breaker
from teatree.storage.objects import ObjectInfo, ObjectStore

T = TypeVar("T")


class GuardedStore(ObjectStore):
    """Any store, asked through a breaker; what it answers and raises while it is there is its own."""

    def __init__(self, store: ObjectStore, breaker: Breaker) -> None:
        self._store = store
        self._breaker = breaker

    @property
    @override
    def url(self) -> str:
        return self._store.url

    @override
    def is_made(self) -> bool:
        return self._store.is_made()

    @override
    def get(self, key: str) -> bytes:
        with self._breaker.guard():
            return self._store.get(key)

    @override
    def get_range(self, key: str, offset: int, length: int) -> bytes:
        with self._breaker.guard():
            return self._store.get_range(key, offset, length)

    @override
    def stream(self, key: str) -> Iterator[bytes]:
        return self._each(self._store.stream(key))

    @override
    def put(self, key: str, body: bytes | Path) -> None:
        with self._breaker.guard():
            self._store.put(key, body)

    @override
    def put_if_absent(self, key: str, body: bytes | Path) -> bool:
        with self._breaker.guard():
            return self._store.put_if_absent(key, body)

    @override
    def head(self, key: str) -> ObjectInfo | None:
        with self._breaker.guard():
            return self._store.head(key)

    @override
    def present(self, keys: Sequence[str]) -> Sequence[str]:
        with self._breaker.guard():
            return self._store.present(keys)

    @override
    def list(self, prefix: str, start_after: str = "") -> Iterator[ObjectInfo]:
        return self._each(self._store.list(prefix, start_after))

    @override
    def delete(self, keys: Iterable[str]) -> None:
        with self._breaker.guard():
            self._store.delete(keys)

    def _each(self, found: Iterator[T]) -> Iterator[T]:
        """Yield what is found; each step is a call, so that a slow reader holds up nobody."""
        while True:
            with self._breaker.guard():
                one = next(found, None)
            if one is None:
                return
            yield one
