"""The spool as a part of the store: packs that are still on this host are read from there."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from typing_extensions import override

from teatree.storage.disk import UNREADABLE
from teatree.storage.objects.base import ObjectInfo, ObjectStore


class SpooledStore(ObjectStore):
    """A store whose packs are taken from a folder while they are there; everything else, and all writes, pass through.

    A pack's name identifies its content, and its readers verify every frame: a file of the folder need not be trusted.
    """

    def __init__(self, store: ObjectStore, spool: Path) -> None:
        self._store = store
        self._spool = spool

    @property
    @override
    def url(self) -> str:
        return self._store.url

    @override
    def get_range(self, key: str, offset: int, length: int) -> bytes:
        if "/packs/" in key:
            try:
                descriptor = os.open(self._spool / Path(key).name, os.O_RDONLY)
            except FileNotFoundError:
                return self._store.get_range(key, offset, length)
            try:
                body = os.pread(descriptor, length, offset)
            except OSError as e:
                if e.errno != UNREADABLE:
                    raise
                body = b""
            finally:
                os.close(descriptor)
            if len(body) == length:
                return body
        return self._store.get_range(key, offset, length)

    @override
    def get(self, key: str) -> bytes:
        return self._store.get(key)

    @override
    def stream(self, key: str) -> Iterator[bytes]:
        return self._store.stream(key)

    @override
    def put(self, key: str, body: bytes | Path) -> None:
        self._store.put(key, body)

    @override
    def put_if_absent(self, key: str, body: bytes | Path) -> bool:
        return self._store.put_if_absent(key, body)

    @override
    def head(self, key: str) -> ObjectInfo | None:
        return self._store.head(key)

    @override
    def present(self, keys: Sequence[str]) -> Sequence[str]:
        return self._store.present(keys)

    @override
    def list(self, prefix: str, start_after: str = "") -> Iterator[ObjectInfo]:
        return self._store.list(prefix, start_after)

    @override
    def delete(self, keys: Iterable[str]) -> None:
        self._store.delete(keys)
