"""What the last clean-up of a model kept: which versions at and below some number still have their manifest.

The object `retained` beside the chain is a shortcut; the manifests' keys are authoritative. A version up to `through`
that it does not name is a stub for ever; one that it names may have become a stub since.
"""

from __future__ import annotations

from datetime import datetime

from attrs import frozen

from teatree.contracts.codec import dump_json, parse_json, structure, tolerate_unknown_keys, unstructure
from teatree.contracts.errors import CorruptError, RequestError
from teatree.storage.objects import NotFoundError, ObjectStore

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
    try:
        members = parse_json(store.get(key), key)
    except NotFoundError:
        return None
    except RequestError as e:
        raise CorruptError(f"The list of kept versions is damaged: {e.message}", where=key) from e
    if not isinstance(members, dict) or members.get("format") != FORMAT:
        return None
    return structure(members, Retained, key)


def write_retained(store: ObjectStore, folder: str, retained: Retained) -> None:
    """Write what a clean-up kept."""
    store.put(retained_key(folder), dump_json(unstructure(retained)))


tolerate_unknown_keys(Retained)
tolerate_unknown_keys(KeptVersion)
