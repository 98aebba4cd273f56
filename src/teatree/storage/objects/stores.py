"""The stores that a URL can name."""

from __future__ import annotations

from urllib.parse import urlsplit

from teatree.contracts.environment import not_set
from teatree.contracts.errors import Code, OperatorError
from teatree.contracts.settings import StoreSettings
from teatree.storage.objects.base import ObjectStore
from teatree.storage.objects.local import open_local_store


def open_store(settings: StoreSettings) -> ObjectStore:
    """Return the store that a URL names: `file:///folder` or `s3://bucket/prefix?endpoint=…&region=…`.

    The store is not called yet. Raises `wrong_configuration`.
    """
    if not settings.url:
        raise not_set("TEATREE_STORE_URL", "the object store")
    match urlsplit(settings.url).scheme:
        case "file":
            return open_local_store(settings)
        case "s3":
            from teatree.storage.objects.s3 import open_s3_store  # noqa: PLC0415  # boto3 costs 0.3 s

            return open_s3_store(settings)
        case scheme:
            raise OperatorError(
                Code.WRONG_CONFIGURATION,
                f"No object store is known for URLs that begin with {scheme!r}.",
                where="TEATREE_STORE_URL",
                hint="Use file:///folder or s3://bucket/prefix.",
            )
