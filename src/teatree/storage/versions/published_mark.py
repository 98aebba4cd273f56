"""The object `published` beside a chain: up to which version an idle model has all outcomes published for good.

A manifest's `announced_version` covers only versions well before it, so without a later version the last ones would
never count as published, and no clean-up would delete them. The mark only adds to what the newest manifest records.
"""

from __future__ import annotations

from teatree.contracts.errors import CorruptError
from teatree.contracts.formats.manifest import Manifest
from teatree.storage.objects.base import ObjectStore
from teatree.storage.objects.small_objects import read_members, write_object


def write_published(store: ObjectStore, folder: str, version: int) -> None:
    """Note that all outcomes up to `version` are published; may be repeated."""
    write_object(store, _key(folder), {"version": version})


def published_through(store: ObjectStore, folder: str, newest: Manifest) -> int:
    """Return up to which version all outcomes are published for good, as recorded in the store."""
    try:
        marked = read_members(store, _key(folder), "The mark of published versions", lambda mark: int(mark["version"]))
    except CorruptError:  # the manifest's number is enough
        marked = None
    return max(newest.announced_version, min(marked or 0, newest.version))


def _key(folder: str) -> str:
    return f"{folder}/published"
