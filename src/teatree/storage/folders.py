"""The models that a store holds: every folder below `models/` is a chain, and its first manifest names the model."""

from __future__ import annotations

from collections.abc import Iterator

from teatree.contracts.formats.manifest import read_entry
from teatree.storage.objects.base import NotFoundError, ObjectStore
from teatree.storage.reread import reread
from teatree.storage.versions.chain import Chain
from teatree.storage.versions.head import read_head

MODELS = "models/"
_AFTER_ALL = "~"
"""Sorts behind every name in a model's folder: the next key belongs to the next model."""


def model_chains(store: ObjectStore, prefix: str) -> Iterator[Chain]:
    """Yield the chains of one installation's models, by one request or two for each."""
    after = ""
    while True:
        found = next(iter(store.list(MODELS, start_after=after)), None)
        if found is None:
            return
        folder = found.key.split("/")[1]
        after = f"{MODELS}{folder}/{_AFTER_ALL}"
        name = _first_name(store, f"{MODELS}{folder}")
        if name is None:
            continue
        chain = Chain(store, prefix, name)
        if chain.goal_model_id == folder:
            yield chain


def _first_name(store: ObjectStore, folder: str) -> str | None:
    """Return the model whose folder it is; None if none of its manifests was ever committed.

    The first one may have vanished, which the chain then reports.
    """
    key = f"{folder}/manifests/{1:020d}"
    try:
        return reread(lambda: read_entry(store.get(key), key)).model
    except NotFoundError:
        head = read_head(store, folder)
    if head is not None:
        return head.model
    found = next(iter(store.list(f"{folder}/manifests/")), None)
    return reread(lambda: read_entry(store.get(found.key), found.key)).model if found else None
