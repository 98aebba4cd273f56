"""The object `published` beside a chain: up to which version an idle model has all outcomes published for good.

A manifest's `announced_version` covers only versions well before it, so without a later version the last ones would
never count as published, and no clean-up would delete them. The mark only adds to what the newest manifest records.
"""

from __future__ import annotations

import orjson

from teatree.contracts.codec import dump_json
from teatree.contracts.manifest import Manifest
from teatree.storage.objects import NotFoundError, ObjectStore


def write_published(store: ObjectStore, folder: str, version: int) -> None:
    """Note that all outcomes up to `version` are published; may be repeated."""
    store.put(_key(folder), dump_json({"version": version}))


def published_through(store: ObjectStore, folder: str, newest: Manifest) -> int:
    """Return up to which version all outcomes are published for good, as recorded in the store."""
    try:
        marked = int(orjson.loads(store.get(_key(folder)))["version"])
    except (NotFoundError, ValueError, KeyError, TypeError):  # none, or damaged: the manifest's number is enough
        return newest.announced_version
    return max(newest.announced_version, min(marked, newest.version))


def _key(folder: str) -> str:
    return f"{folder}/published"
