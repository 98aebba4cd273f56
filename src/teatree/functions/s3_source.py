"""The source of objects in S3, under the prefixes that the operator named."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import attrs
from typing_extensions import override

from teatree.contracts.errors import Code, OperatorError, RequestError
from teatree.functions.sources import Source, Sources
from teatree.storage.objects.base import NotFoundError
from teatree.storage.objects.stores import open_store
from teatree.storage.temporary_folder import temporary_folder


class S3Source(Source):
    """Downloads objects, with the endpoint and the credentials of the installation's store."""

    def __init__(self, places: Sources) -> None:
        self._store = places.store
        self._temp = places.temp

    @override
    @contextmanager
    def local_file(self, uri: str) -> Iterator[Path]:
        parts = urlsplit(uri)
        with temporary_folder(self._temp) as folder:
            path = folder / (Path(parts.path).name[-100:] or "source")
            self._download(parts.netloc, parts.path.lstrip("/"), uri, path)
            yield path

    def _download(self, bucket: str, key: str, uri: str, path: Path) -> None:
        query = urlsplit(self._store.url).query if self._store.url.startswith("s3://") else ""
        settings = attrs.evolve(self._store, url=f"s3://{bucket}/?{query}" if query else f"s3://{bucket}/")
        try:
            open_store(settings).download(key, path)
        except NotFoundError:
            raise RequestError(Code.BAD_SOURCE, f"There is no object {uri!r}.", where="uri") from None
        except OperatorError as e:
            raise RequestError(Code.SOURCE_NOT_ALLOWED, f"{uri!r} cannot be read: {e.message}", where="uri") from e
