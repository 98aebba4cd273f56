"""Deletions: the versions that a clean-up is about to remove, written first, so that none is pinned in between.

A pin is written before deletions are read, and a deletion before pins are read. Of two written at once at least one is
found by the other side, whatever crashes or is suspended in between: the pin comes too late, or the clean-up keeps the
version. A deletion is removed when all its versions are stubs, which refuse a pin as it did.
"""

from __future__ import annotations

import secrets

from attrs import frozen

from teatree.storage.objects.base import ObjectStore
from teatree.storage.objects.small_objects import read_object, write_object


@frozen
class Deletion:
    """The versions that one clean-up removes."""

    key: str
    versions: tuple[int, ...]


def new_deletion(folder: str, versions: tuple[int, ...]) -> Deletion:
    """Return a deletion under a new, unique key."""
    return Deletion(f"{folder}/cleanup/{secrets.token_hex(8)}", versions)


def write_deletion(store: ObjectStore, deletion: Deletion) -> None:
    """Write a deletion, in place of an earlier one under its key."""
    write_object(store, deletion.key, deletion)


def read_deletions(store: ObjectStore, folder: str) -> list[Deletion]:
    """Return the deletions of all clean-ups, running or crashed."""
    listed = store.list(f"{folder}/cleanup/")
    found = (read_object(store, info.key, "The deletion of a clean-up", Deletion) for info in listed)
    return [deletion for deletion in found if deletion is not None]  # the clean-ups of others have ended meanwhile
