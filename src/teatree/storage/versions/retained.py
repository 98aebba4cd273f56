"""What the last clean-up of a model kept: which versions at and below some number still have their manifest.

The object `retained` beside the chain is a shortcut; the manifests' keys are authoritative. A version up to `through`
that it does not name is a stub for ever; one that it names may have become a stub since.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from attrs import frozen

from teatree.contracts.formats.codec import structure, tolerate_unknown_keys
from teatree.storage.objects.base import ObjectStore
from teatree.storage.objects.small_objects import read_members, write_object

FORMAT = 1


@frozen
class KeptVersion:
    """A version that has its manifest."""

    version: int
    at: datetime
    write_id: str


@frozen
class Retained:
    """The versions up to `through` that were kept, ascending, and when that was found."""

    at: datetime
    through: int
    versions: tuple[KeptVersion, ...]
    format: int = FORMAT


def retained_key(folder: str) -> str:
    """Return the key of the object, for a model's folder."""
    return f"{folder}/retained"


def read_retained(store: ObjectStore, folder: str) -> Retained | None:
    """Return what the last clean-up kept, None if there was none or a newer release wrote it in another way."""
    key = retained_key(folder)

    def read(members: Any) -> Retained | None:
        is_ours = isinstance(members, dict) and members.get("format") == FORMAT
        return structure(members, Retained, key) if is_ours else None

    return read_members(store, key, "The list of kept versions", read)


def write_retained(store: ObjectStore, folder: str, retained: Retained) -> None:
    """Write what a clean-up kept."""
    write_object(store, retained_key(folder), retained)


tolerate_unknown_keys(Retained)
tolerate_unknown_keys(KeptVersion)
