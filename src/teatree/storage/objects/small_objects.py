"""Small JSON objects beside a chain: read, written, created once; one that cannot be read is `corrupt`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from teatree.contracts.errors import CorruptError, RequestError
from teatree.contracts.formats.codec import dump_json, parse_json, structure, unstructure
from teatree.storage.objects.base import NotFoundError, ObjectStore
from teatree.storage.reread import reread

T = TypeVar("T")


def read_object(store: ObjectStore, key: str, noun: str, kind: type[T]) -> T | None:
    """Return the value that an object holds, None if there is no such object; raises `corrupt`, naming `noun`."""
    return read_members(store, key, noun, lambda members: structure(members, kind, key))


def read_members(store: ObjectStore, key: str, noun: str, read: Callable[[Any], T]) -> T | None:
    """Return what `read` makes of an object's JSON value, None if there is no such object.

    Damage on the way from the store ends with the next read; what stays unreadable is `corrupt`.
    """
    try:
        return reread(lambda: _read(store.get(key), key, noun, read))
    except NotFoundError:
        return None


def _read(body: bytes, key: str, noun: str, read: Callable[[Any], T]) -> T:
    try:
        return read(parse_json(body, key))
    except (RequestError, CorruptError) as e:
        raise CorruptError(f"{noun} is damaged: {e.message}", where=key) from e
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise CorruptError(f"{noun} is damaged: {type(e).__name__}: {e}", where=key) from e


def write_object(store: ObjectStore, key: str, value: Any) -> None:
    """Write a value, in place of what the key held."""
    store.put(key, dump_json(unstructure(value)))


def create_object(store: ObjectStore, key: str, value: Any) -> bool:
    """Write a value unless the key holds one; return whether it was written."""
    return store.put_if_absent(key, dump_json(unstructure(value)))
