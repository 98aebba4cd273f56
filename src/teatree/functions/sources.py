"""Places that `load` may read: folders and S3 prefixes that the operator named."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

import attrs
from attrs import frozen

from teatree.contracts.errors import Code, OperatorError, RequestError
from teatree.contracts.settings import StoreSettings
from teatree.storage.folders import MODELS
from teatree.storage.objects.base import NotFoundError
from teatree.storage.objects.stores import open_store
from teatree.storage.temporary_folder import temporary_folder

_LOCK = "manager.lock"
"""In every model's folder; see `storage/model_folder.py`."""
_HINT = "An operator allows places with TEATREE_LOAD_ROOTS."


@frozen
class Sources:
    """Opens what `load` names, if it lies in an allowed place."""

    roots: tuple[str, ...]
    """Folders, or `s3://bucket/prefix`."""
    store: StoreSettings
    """Endpoint and credentials for S3 sources."""
    data: Path | None = None
    """The installation's data folder: what it keeps there is never read, whatever the roots."""
    temp: Path | None = None
    """The folder into which S3 sources are downloaded; None for the system's."""

    @contextmanager
    def local_file(self, uri: str) -> Iterator[Path]:
        """Yield a local file with the source's bytes, for the time of the block.

        Raises `source_not_allowed`, `bad_source` if there is nothing, `unavailable` if the place does not answer.
        """
        parts = _split(uri)
        match parts.scheme:
            case "" | "file" if parts.netloc in ("", "localhost"):
                yield self._allowed_file(uri if not parts.scheme else unquote(parts.path))
            case "s3":
                with temporary_folder(self.temp) as folder:
                    path = folder / (Path(parts.path).name[-100:] or "source")
                    self._download(parts.netloc, parts.path.lstrip("/"), uri, path)
                    yield path
            case scheme:
                raise RequestError(
                    Code.BAD_SOURCE,
                    f"load cannot read {scheme}://{parts.hostname or ''} sources.",
                    where="uri",
                    hint="Name a file, or s3://bucket/key.",
                )

    def _allowed_file(self, name: str) -> Path:
        path = Path(name)
        if not path.is_absolute():
            raise RequestError(Code.BAD_SOURCE, f"{name!r} is not an absolute path.", where="uri")
        roots = [
            Path(root.removeprefix("file://")).resolve()
            for root in self.roots
            if "://" not in root.removeprefix("file://")
        ]
        try:
            real = path.resolve()  # a link must not lead out of an allowed folder
            allowed = any(real.is_relative_to(root) and not self._is_kept(real, root) for root in roots)
            is_file = allowed and real.is_file()
        except (OSError, ValueError, RuntimeError) as e:  # a loop of links, too long, forbidden, or no path at all
            raise RequestError(Code.BAD_SOURCE, f"{name!r} cannot be opened: {_reason(e)}.", where="uri") from e
        if not allowed:
            raise RequestError(
                Code.SOURCE_NOT_ALLOWED, f"{name!r} is not in a place that load may read.", where="uri", hint=_HINT
            )
        if not is_file:
            raise RequestError(Code.BAD_SOURCE, f"There is no file {name!r}.", where="uri")
        return real

    def _is_kept(self, real: Path, root: Path) -> bool:
        """Return whether the installation keeps a file: in its store, or in the data folder but not in a root there.

        Such a root is a folder that the operator named, that is no model's and none of the servers' (`_…`).
        """
        if self.store.url.startswith("file://"):
            store = Path(unquote(urlsplit(self.store.url).path)).resolve()
            if real.is_relative_to(store):
                return True
        data = None if self.data is None else self.data.resolve()
        if data is None or not real.is_relative_to(data):
            return False
        if not root.is_relative_to(data) or root == data:
            return True
        top = data / root.relative_to(data).parts[0]
        return top.name.startswith(("_", ".")) or (top / _LOCK).exists()

    def _download(self, bucket: str, key: str, uri: str, path: Path) -> None:
        plain = f"s3://{bucket}/{key}"
        roots = [root.rstrip("/") for root in self.roots if root.startswith("s3://")]
        inside = any(plain == root or plain.startswith(f"{root}/") for root in roots)
        own = f"{self.store.url.split('?')[0].rstrip('/')}/{MODELS}"
        if not inside or ".." in key.split("/") or plain.startswith(own):
            raise RequestError(
                Code.SOURCE_NOT_ALLOWED, f"{uri!r} is not in a place that load may read.", where="uri", hint=_HINT
            )
        query = urlsplit(self.store.url).query if self.store.url.startswith("s3://") else ""
        settings = attrs.evolve(self.store, url=f"s3://{bucket}/?{query}" if query else f"s3://{bucket}/")
        try:
            open_store(settings).download(key, path)
        except NotFoundError:
            raise RequestError(Code.BAD_SOURCE, f"There is no object {uri!r}.", where="uri") from None
        except OperatorError as e:
            raise RequestError(Code.SOURCE_NOT_ALLOWED, f"{uri!r} cannot be read: {e.message}", where="uri") from e


def _split(uri: str) -> SplitResult:
    try:
        uri.encode()
        parts = urlsplit(uri)
    except ValueError as e:
        raise RequestError(Code.BAD_SOURCE, f"{uri!r} is not an address: {_reason(e)}.", where="uri") from None
    if "\0" in uri:
        raise RequestError(Code.BAD_SOURCE, f"{uri!r} is not an address: it holds a NUL.", where="uri")
    return parts


def _reason(error: Exception) -> str:
    """Return why, without the path: the message has that already."""
    return error.strerror or "it failed" if isinstance(error, OSError) else str(error).split(" from ")[0]
