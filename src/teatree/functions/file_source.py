"""The source of files on the manager's host, in the folders that the operator named."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from typing_extensions import override

from teatree.contracts.errors import Code, RequestError
from teatree.functions.sources import Source, Sources, not_allowed, split_uri, why

_LOCK = "manager.lock"
"""In every model's folder; see `storage/model_folder.py`."""


class FileSource(Source):
    """Reads files in place. It checks them itself: a link must not lead out of an allowed folder."""

    def __init__(self, places: Sources) -> None:
        self._places = places

    @override
    @contextmanager
    def local_file(self, uri: str) -> Iterator[Path]:
        parts = split_uri(uri)
        if parts.scheme and parts.netloc not in ("", "localhost"):
            raise RequestError(
                Code.BAD_SOURCE,
                f"load cannot read file://{parts.hostname or ''} sources.",
                where="uri",
                hint="Name a file of the manager's host: file:///folder/name.",
            )
        yield self._allowed(unquote(parts.path) if parts.scheme else uri)

    def _allowed(self, name: str) -> Path:
        path = Path(name)
        if not path.is_absolute():
            raise RequestError(Code.BAD_SOURCE, f"{name!r} is not an absolute path.", where="uri")
        roots = [
            Path(root.removeprefix("file://")).resolve()
            for root in self._places.roots
            if "://" not in root.removeprefix("file://")
        ]
        try:
            real = path.resolve()
            allowed = any(real.is_relative_to(root) and not self._is_kept(real, root) for root in roots)
            is_file = allowed and real.is_file()
        except (OSError, ValueError, RuntimeError) as e:  # a loop of links, too long, forbidden, or no path at all
            raise RequestError(Code.BAD_SOURCE, f"{name!r} cannot be opened: {why(e)}.", where="uri") from e
        if not allowed:
            raise not_allowed(name)
        if not is_file:
            raise RequestError(Code.BAD_SOURCE, f"There is no file {name!r}.", where="uri")
        return real

    def _is_kept(self, real: Path, root: Path) -> bool:
        """Return whether the installation keeps a file: in its store, or in the data folder but not in a root there.

        Such a root is a folder that the operator named, that is no model's and none of the servers' (`_…`).
        """
        if self._places.store.url.startswith("file://"):
            store = Path(unquote(urlsplit(self._places.store.url).path)).resolve()
            if real.is_relative_to(store):
                return True
        data = None if self._places.data is None else self._places.data.resolve()
        if data is None or not real.is_relative_to(data):
            return False
        if not root.is_relative_to(data) or root == data:
            return True
        top = data / root.relative_to(data).parts[0]
        return top.name.startswith(("_", ".")) or (top / _LOCK).exists()
