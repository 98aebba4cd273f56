"""Places that `load` may read: folders, S3 prefixes and those of other sources that the operator named."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from attrs import frozen

from teatree.contracts.errors import Code, OperatorError, RequestError
from teatree.contracts.parts import PartGroup, make_part, part_names
from teatree.contracts.settings import StoreSettings
from teatree.storage.folders import MODELS

_FILE = "file"
_HINT = "An operator allows places with TEATREE_LOAD_ROOTS."


@frozen
class Sources:
    """Opens what `load` names, if it lies in an allowed place."""

    roots: tuple[str, ...]
    """Folders, or a scheme and what follows it: `s3://bucket/prefix`."""
    store: StoreSettings
    """Endpoint and credentials for S3 sources."""
    data: Path | None = None
    """The installation's data folder: what it keeps there is never read, whatever the roots."""
    temp: Path | None = None
    """The folder into which sources are downloaded; None for the system's."""

    @contextmanager
    def local_file(self, uri: str) -> Iterator[Path]:
        """Yield a local file with the source's bytes, for the time of the block.

        Raises `source_not_allowed`, `bad_source` if there is nothing, `unavailable` if the place does not answer.
        """
        parts = split_uri(uri)
        scheme = parts.scheme or _FILE
        if scheme not in part_names(PartGroup.SOURCES):
            raise RequestError(
                Code.BAD_SOURCE,
                f"load cannot read {scheme}://{parts.hostname or ''} sources.",
                where="uri",
                hint=f"Name a file, or a URI of {', '.join(part_names(PartGroup.SOURCES))}.",
            )
        place = uri if scheme == _FILE else self._inside(uri, parts)
        with self._source(scheme).local_file(place) as path:
            yield path

    def _source(self, scheme: str) -> Source:
        try:
            source: Source = make_part(PartGroup.SOURCES, scheme, Source, "uri", self)
        except OperatorError as e:  # of an installed package, or of an extra: no reason for a manager to stop
            raise RequestError(Code.BAD_SOURCE, e.message, where="uri", hint=e.hint) from e
        return source

    def _inside(self, uri: str, parts: SplitResult) -> str:
        """Return a URI without what would lead its source elsewhere, if it lies in an allowed place."""
        place = f"{parts.scheme}://{parts.netloc}/{parts.path.lstrip('/')}"
        roots = [root.rstrip("/") for root in self.roots if root.startswith(f"{parts.scheme}://")]
        inside = any(place == root or place.startswith(f"{root}/") for root in roots)
        own = f"{self.store.url.split('?')[0].rstrip('/')}/{MODELS}"
        if not inside or ".." in unquote(parts.path).split("/") or place.startswith(own):
            raise not_allowed(uri)
        return place


class Source(ABC):
    """What reads places of one kind, by the scheme of their URIs; made from `Sources` for each file."""

    @abstractmethod
    def local_file(self, uri: str) -> AbstractContextManager[Path]:
        """Return a local file with the bytes at a URI, for the time of a block; its name ends as the URI does.

        The URI lies in an allowed place and has neither query nor fragment. Raises `bad_source` if there is nothing,
        `source_not_allowed` for what this installation may not read, `unavailable` if trying again can help.
        """


def not_allowed(uri: str) -> RequestError:
    """Return the error for a source outside of the places that the operator named."""
    return RequestError(
        Code.SOURCE_NOT_ALLOWED, f"{uri!r} is not in a place that load may read.", where="uri", hint=_HINT
    )


def split_uri(uri: str) -> SplitResult:
    """Return the parts of an address; raises `bad_source` if it is none."""
    try:
        uri.encode()
        parts = urlsplit(uri)
    except ValueError as e:
        raise RequestError(Code.BAD_SOURCE, f"{uri!r} is not an address: {why(e)}.", where="uri") from None
    if "\0" in uri:
        raise RequestError(Code.BAD_SOURCE, f"{uri!r} is not an address: it holds a NUL.", where="uri")
    return parts


def why(error: Exception) -> str:
    """Return why, without the path: the message has that already."""
    return error.strerror or "it failed" if isinstance(error, OSError) else str(error).split(" from ")[0]
