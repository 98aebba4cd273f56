"""The object `head` beside a chain: a copy of its newest manifest, by which a vanished one is found and restored.

It is written after the chain, coalescing: it may lag, and never names a version that was not committed. Read before the
manifests, it gives a number that must be among them.
"""

from __future__ import annotations

from teatree.contracts.errors import CorruptError
from teatree.contracts.formats.manifest import Manifest, read_manifest
from teatree.storage.objects.base import NotFoundError, ObjectStore
from teatree.storage.reread import reread


def head_key(folder: str) -> str:
    """Return the key of the object, for a model's folder."""
    return f"{folder}/head"


def read_head(store: ObjectStore, folder: str) -> Manifest | None:
    """Return the copy, None if there is none or it is damaged: it is redundant, and the next version renews it.

    `verify` reports a damaged one.
    """
    try:
        return check_head(store, folder)
    except CorruptError:
        return None


def check_head(store: ObjectStore, folder: str) -> Manifest | None:
    """Return the copy, None if there is none; raises `corrupt` if it is damaged."""
    key = head_key(folder)
    try:
        return reread(lambda: read_manifest(store.get(key), key))
    except NotFoundError:
        return None


def advance_head(store: ObjectStore, folder: str, manifest: Manifest) -> None:
    """Write the copy of `manifest`, which is committed, unless that of a newer one is there."""
    present = read_head(store, folder)
    if present is None or present.version < manifest.version:
        store.put(head_key(folder), manifest.to_json())
