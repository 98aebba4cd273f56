"""The object store: immutable bytes under keys, with the one conditional write that commits everything.

Implementations lie beside this file (`local`, `s3`); `stores.open_store` picks one by URL. All are safe to share by
threads.
"""

from __future__ import annotations

import os
import secrets
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from attrs import frozen

from teatree.contracts.errors import Code, CorruptError, OperatorError, RequestError, RetryError
from teatree.storage.disk import FULL

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

KEY_BYTES_MAX = 900
"""Bytes of a key: S3 takes 1,024 with the store's own prefix."""
PART_BYTES_MAX = 255
"""Bytes between two slashes: the longest name of a file."""
COPY_BYTES = 1_048_576
"""Bytes moved at once between a file and the store."""


@frozen
class ObjectInfo:
    """An object's metadata."""

    key: str
    size_bytes: int
    modified_at: datetime
    """In UTC, by the store's clock."""


class NotFoundError(OperatorError):
    """There is no object under this key."""

    def __init__(self, key: str, store_url: str) -> None:
        super().__init__(
            Code.NOT_FOUND,
            f"The object store {store_url} has no object {key!r}.",
            where=key,
            hint="It was cleaned up, or the store is not the one it was written to.",
        )
        self.key = key


# More than ten public methods: the six of a store, and what is derived from them.
class ObjectStore(ABC):
    """Bytes under keys.

    A key is parts joined by `/`; no key may be another one's folder. An object appears whole or not at all, and once a
    write has returned, the object survives any crash. Raises `unavailable` or `disk_full` when trying again can help,
    `not_authorized` or `wrong_configuration` when it cannot, and `bad_name` for an invalid key.
    """

    @property
    @abstractmethod
    def url(self) -> str:
        """Where the store is, without secrets."""

    def is_made(self) -> bool:
        """Return whether the store itself exists: a folder is created by the first write, or mounted with its disk."""
        return True

    @abstractmethod
    def get(self, key: str) -> bytes:
        """Return an object's bytes; raises `NotFoundError`."""

    @abstractmethod
    def get_range(self, key: str, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes from `offset` on; raises `NotFoundError`, or `corrupt` if there are fewer."""

    @abstractmethod
    def stream(self, key: str) -> Iterator[bytes]:
        """Yield an object's bytes in pieces; raises `NotFoundError`, or `corrupt` if they end early."""

    def download(self, key: str, path: Path) -> None:
        """Write an object into the file at `path`, which appears whole or not at all; raises `NotFoundError`."""
        part = path.with_name(f".{path.name[:200]}.{secrets.token_hex(8)}.part")
        try:
            with part.open("xb") as file:
                for piece in self.stream(key):
                    file.write(piece)
            part.replace(path)
        except OSError as e:
            code = Code.DISK_FULL if e.errno in FULL else Code.UNAVAILABLE
            raise RetryError(
                code, f"Could not write {path}: {e.strerror}.", where=key, hint="Look at that disk; then try again."
            ) from e
        finally:
            with suppress(FileNotFoundError):
                part.unlink()

    @abstractmethod
    def put(self, key: str, body: bytes | Path) -> None:
        """Write an object, in place of one that is there."""

    @abstractmethod
    def put_if_absent(self, key: str, body: bytes | Path) -> bool:
        """Write an object unless there is one: of any number of callers at once, one creates it and gets True.

        False means only that an object is there: it can be our own, if the reply to an earlier try was lost. A writer
        that must distinguish these puts a unique id into its bytes and reads them back.
        """

    @abstractmethod
    def head(self, key: str) -> ObjectInfo | None:
        """Return an object's metadata; None if there is none."""

    def present(self, keys: Sequence[str]) -> Sequence[str]:
        """Return those of some keys under which there is an object.

        `keys` are ascending, in one folder, and few other keys of that folder lie between them.
        """
        return [key for key in keys if self.head(key) is not None]

    @abstractmethod
    def list(self, prefix: str, start_after: str = "") -> Iterator[ObjectInfo]:
        """Yield the objects whose keys begin with `prefix` and come after `start_after`, in the order of their keys."""

    @abstractmethod
    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; missing ones are ignored."""


def check_key(key: str) -> str:
    """Return a key, or raise `bad_name` if it is empty, absolute, too long or outside of the store."""
    parts = key.split("/")
    size_bytes = len(key.encode("utf-8", "replace"))
    fits = size_bytes <= KEY_BYTES_MAX and all(len(p.encode("utf-8", "replace")) <= PART_BYTES_MAX for p in parts)
    if fits and key.isprintable() and "\\" not in key and not any(part in ("", ".", "..") for part in parts):
        return key
    raise RequestError(
        Code.BAD_NAME,
        f"{key[:200]!r} is not an object's key.",
        where="key",
        hint="Join names by single slashes, without . and .., and stay short.",
    )


def body_size_bytes(body: bytes | Path) -> int:
    """Return the size of what is to be written."""
    return len(body) if isinstance(body, bytes) else os.stat(body).st_size  # noqa: PTH116


def object_uri(store_url: str, key: str) -> str:
    """Return an object's URI, for other programs: `s3://bucket/prefix/key` or `file:///folder/key`."""
    parts = urlsplit(store_url)
    name = quote(key) if parts.scheme == "file" else key
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}/{name}"


def whole_range(found: bytes, key: str, offset: int, length: int) -> bytes:
    """Return what a store read of a range; raises `corrupt` if it is not as long as what was wanted."""
    if len(found) != length:
        raise CorruptError(
            f"The object has {len(found)} of the {length} bytes wanted from byte {offset} on.", where=key
        )
    return found
