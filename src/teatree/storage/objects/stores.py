"""The stores that a URL can name: parts of installed packages, ours among them, by the URL's scheme."""

from __future__ import annotations

from urllib.parse import urlsplit

from teatree.contracts.environment import not_set
from teatree.contracts.parts import PartGroup, make_part
from teatree.contracts.settings import StoreSettings
from teatree.storage.objects.base import ObjectStore

_VARIABLE = "TEATREE_STORE_URL"


def open_store(settings: StoreSettings) -> ObjectStore:
    """Return the store that a URL names: `file:///folder`, `s3://bucket/prefix?endpoint=…&region=…`, or another's.

    The store is not called yet. Raises `wrong_configuration`.
    """
    if not settings.url:
        raise not_set(_VARIABLE, "the object store")
    scheme = urlsplit(settings.url).scheme if ":/" in settings.url else ""  # else it can be a name before a password
    store: ObjectStore = make_part(PartGroup.STORES, scheme, ObjectStore, _VARIABLE, settings)
    return store
