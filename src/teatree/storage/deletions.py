"""Deletions: the versions that a clean-up is about to remove, written first, so that none is pinned in between.

A pin is written before deletions are read, and a deletion before pins are read. Of two written at once at least one is
found by the other side, whatever crashes or is suspended in between: the pin comes too late, or the clean-up keeps the
version. A deletion is removed when all its versions are stubs, which refuse a pin as it did.
"""

from __future__ import annotations

import secrets

from attrs import frozen

from teatree.contracts.codec import dump_json, parse_json, structure, unstructure
from teatree.contracts.errors import CorruptError, RequestError
from teatree.storage.objects import NotFoundError, ObjectStore


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
    store.put(deletion.key, dump_json(unstructure(deletion)))


def read_deletions(store: ObjectStore, folder: str) -> list[Deletion]:
    """Return the deletions of all clean-ups, running or crashed."""
    found: list[Deletion] = []
    for info in store.list(f"{folder}/cleanup/"):
        try:
            found.append(structure(parse_json(store.get(info.key), info.key), Deletion, info.key))
        except NotFoundError:
            continue  # its clean-up has ended meanwhile
        except RequestError as e:
            raise CorruptError(f"The deletion of a clean-up is damaged: {e.message}", where=info.key) from e
    return found
