"""The object store in a local folder: one file an object, created under its final name only when whole and synced.

Bytes go to a name in `.tmp`, are synced, and then linked (create if absent) or renamed (overwrite) to their place, and
the folder is synced. A kill at any moment leaves at most a file in `.tmp`; the next open removes old ones.
Folders are used through open descriptors, kept in a small cache: a descriptor whose folder was removed meanwhile
refuses new entries, so nothing is ever written into a folder that is itself not durable.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import threading
import time
import weakref
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import unquote, urlsplit

from cachetools import LRUCache
from typing_extensions import override

from teatree.contracts.errors import Code, OperatorError, RequestError, RetryError
from teatree.storage.disk import FULL
from teatree.storage.objects.base import COPY_BYTES, NotFoundError, ObjectInfo, ObjectStore, check_key, whole_range

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from teatree.contracts.settings import StoreSettings

TEMP_FOLDER = ".tmp"
TEMP_AGE_S_MAX = 86_400
"""Seconds after which a file in `.tmp` is a leftover of a crash: no single write takes a day."""
FOLDERS_OPEN_MAX = 64
"""Descriptors of folders kept open: a model uses about five."""
TRIES_MAX = 10
"""Times that a write starts again because a clean-up removed the emptied folder under it."""


def open_local_store(settings: StoreSettings) -> LocalObjectStore:
    """Return the store in the folder that `file:///folder` names."""
    parts = urlsplit(settings.url)
    root = Path(unquote(parts.path))
    if parts.netloc not in ("", "localhost") or parts.query or not root.is_absolute() or root == Path("/"):
        raise OperatorError(
            Code.WRONG_CONFIGURATION,
            f"{settings.url!r} does not name a folder.",
            where="TEATREE_STORE_URL",
            hint="Use file:///folder, with three slashes and an absolute path.",
        )
    return LocalObjectStore(root)


class LocalObjectStore(ObjectStore):
    """Objects as files below one folder, which the first write creates."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folders = _Folders(root)
        self._remove_leftovers()

    @property
    @override
    def url(self) -> str:
        return self._root.as_uri()

    @override
    def is_made(self) -> bool:
        return self._root.is_dir()

    @override
    def get(self, key: str) -> bytes:
        with self._opened(key) as file:
            return file.read()

    @override
    def get_range(self, key: str, offset: int, length: int) -> bytes:
        with self._opened(key) as file:
            file.seek(offset)
            found = file.read(length)
        return whole_range(found, key, offset, length)

    @override
    def stream(self, key: str) -> Iterator[bytes]:
        with self._opened(key) as file:
            while piece := file.read(COPY_BYTES):
                yield piece

    @override
    def put(self, key: str, body: bytes | Path) -> None:
        def replace(temp: Path, folder: _Folder, name: str) -> bool:
            os.replace(temp, name, dst_dir_fd=folder.fd)
            return True

        self._write(key, body, replace)

    @override
    def put_if_absent(self, key: str, body: bytes | Path) -> bool:
        def link(temp: Path, folder: _Folder, name: str) -> bool:
            try:
                os.link(temp, name, dst_dir_fd=folder.fd)
            except FileExistsError:
                return False
            return True

        return self._write(key, body, link)

    @override
    def head(self, key: str) -> ObjectInfo | None:
        with self._translated("look at", check_key(key)):
            try:
                info = (self._root / key).stat()
            except (FileNotFoundError, NotADirectoryError):
                self._folders.check_root()
                return None
        return _info(key, info) if _is_file(info) else None

    @override
    def list(self, prefix: str, start_after: str = "") -> Iterator[ObjectInfo]:
        folder, _, _ = prefix.rpartition("/")
        if folder:
            check_key(folder)
        yield from self._list_folder(f"{folder}/" if folder else "", prefix, start_after)

    @override
    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            path = self._path(key)
            with self._translated("delete", key):
                with suppress(FileNotFoundError, NotADirectoryError):
                    path.unlink()
                self._remove_empty_folders(path.parent)

    def _path(self, key: str) -> Path:
        if check_key(key).split("/")[0] == TEMP_FOLDER:
            raise RequestError(Code.BAD_NAME, f"{key!r} lies in the store's own folder.", where="key")
        return self._root / key

    @contextmanager
    def _opened(self, key: str) -> Iterator[BinaryIO]:
        path = self._path(key)
        with self._translated("read", key):
            try:
                file = path.open("rb")
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                self._folders.check_root()
                raise NotFoundError(key, self.url) from None
            with file:
                yield file

    def _write(self, key: str, body: bytes | Path, place: Callable[[Path, _Folder, str], bool]) -> bool:
        path = self._path(key)
        self._folders.check_root()
        with self._translated("write", key), self._temp_file(body) as temp:
            for _ in range(TRIES_MAX):
                try:
                    folder = self._folders.durable(path.parent)
                    created = place(temp, folder, path.name)
                except FileNotFoundError:
                    # A clean-up took an emptied folder away after we opened it: make it again.
                    self._folders.forget(path.parent)
                    continue
                # Also when another writer's object is there: the caller may rely on it.
                folder.sync()
                return created
        raise RetryError(
            Code.UNAVAILABLE,
            f"Could not write to the object store {self.url}: the folder of {key!r} vanished {TRIES_MAX} times.",
            where=key,
            hint="Try again; check what else removes files there.",
        )

    @contextmanager
    def _temp_file(self, body: bytes | Path) -> Iterator[Path]:
        """Write `body` to a file in the same file system, whole and synced, that exists until the block ends."""
        folder = self._root / TEMP_FOLDER
        self._folders.durable(folder)
        temp = folder / f"{os.getpid()}-{secrets.token_hex(8)}"
        try:
            with temp.open("xb") as file:
                if isinstance(body, Path):
                    with body.open("rb") as source:
                        shutil.copyfileobj(source, file, COPY_BYTES)
                else:
                    file.write(body)
                file.flush()
                os.fsync(file.fileno())
            yield temp
        finally:
            with suppress(FileNotFoundError):
                temp.unlink()

    def _list_folder(self, folder: str, prefix: str, start_after: str) -> Iterator[ObjectInfo]:
        """Yield what lies below `folder` ("" or ending in a slash), without reading folders that cannot match."""
        names: list[str] = []  # of a folder with its slash: so they sort as whole keys do
        with self._translated("list", folder):
            try:
                entries = os.scandir(self._root / folder)
            except (FileNotFoundError, NotADirectoryError):
                self._folders.check_root()
                return
            with entries:
                for entry in entries:
                    key = f"{folder}{entry.name}/" if entry.is_dir(follow_symlinks=False) else folder + entry.name
                    if key != f"{TEMP_FOLDER}/" and _can_match(key, prefix, start_after):
                        names.append(key)
        for key in sorted(names):
            if key.endswith("/"):
                yield from self._list_folder(key, prefix, start_after)
                continue
            info = self.head(key)
            if info is not None:
                yield info

    def _remove_empty_folders(self, folder: Path) -> None:
        while folder != self._root:
            try:
                folder.rmdir()
            except OSError as e:
                if e.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT, errno.ENOTDIR):
                    return
                raise
            folder = folder.parent

    def _remove_leftovers(self) -> None:
        oldest = time.time() - TEMP_AGE_S_MAX
        with self._translated("clean", TEMP_FOLDER):
            try:
                entries = os.scandir(self._root / TEMP_FOLDER)
            except (FileNotFoundError, NotADirectoryError):
                return
            with entries:
                for entry in entries:
                    with suppress(FileNotFoundError):  # another process cleans too
                        if entry.stat(follow_symlinks=False).st_mtime < oldest:
                            Path(entry.path).unlink()

    @contextmanager
    def _translated(self, operation: str, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as e:
            raise _translate(e, operation, key, self.url) from e


class _Folder:
    """An open folder; its descriptor closes with the last reference, so no thread loses it in use."""

    def __init__(self, path: Path | str, parent: _Folder | None = None) -> None:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        self.fd: int = os.open(path, flags, dir_fd=None if parent is None else parent.fd)
        weakref.finalize(self, os.close, self.fd).atexit = False

    def sync(self) -> None:
        os.fsync(self.fd)


class _Folders:
    """The folders that are known to be durable: each one's entry in its parent was synced."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._open: LRUCache[Path, _Folder] = LRUCache(FOLDERS_OPEN_MAX)
        self._had_root = root.is_dir()

    def check_root(self) -> None:
        """Raise `unavailable` if the store's folder was there and is not now: it may be on an unmounted disk."""
        had_root = self._had_root  # read first: another thread may make the folder between the two checks
        if self._root.is_dir():
            self._had_root = True
        elif had_root:
            raise RetryError(
                Code.UNAVAILABLE,
                f"The folder of the object store {self._root.as_uri()} is missing.",
                where="TEATREE_STORE_URL",
                hint="Mount its disk, or restore the folder with all that was in it.",
            )

    def durable(self, path: Path) -> _Folder:
        """Return the open folder, made and synced into its parents if that is not known; raises FileNotFoundError."""
        with self._lock:
            folder = self._open.get(path)
            if folder is not None:
                return folder
        folder = self._make_root() if path == self._root else self._make(self.durable(path.parent), path.name)
        with self._lock:
            self._open[path] = folder
        return folder

    def forget(self, path: Path) -> None:
        """Drop the open descriptors of a folder and of its parents."""
        with self._lock:
            for folder in (path, *path.parents):
                self._open.pop(folder, None)

    def _make(self, parent: _Folder, name: str) -> _Folder:
        with suppress(FileExistsError):
            os.mkdir(name, dir_fd=parent.fd)
        folder = _Folder(name, parent)
        # Also when it was there: another process may have made it a moment ago and not yet synced it.
        parent.sync()
        return folder

    def _make_root(self) -> _Folder:
        self.check_root()  # it may have vanished in the middle of a write
        missing = [path for path in (self._root, *self._root.parents) if not path.exists()]
        self._root.mkdir(parents=True, exist_ok=True)
        for path in missing or [self._root]:
            _Folder(path.parent).sync()
        self._had_root = True
        return _Folder(self._root)


def _can_match(key: str, prefix: str, start_after: str) -> bool:
    """Return whether a key, or anything below a folder's key, begins with `prefix` and comes after `start_after`."""
    if not key.endswith("/"):
        return key.startswith(prefix) and key > start_after
    return (key.startswith(prefix) or prefix.startswith(key)) and (key > start_after or start_after.startswith(key))


def _is_file(info: os.stat_result) -> bool:
    return (info.st_mode & 0o170000) == 0o100000


def _info(key: str, info: os.stat_result) -> ObjectInfo:
    return ObjectInfo(key, info.st_size, datetime.fromtimestamp(info.st_mtime, UTC))


def _translate(error: OSError, operation: str, key: str, url: str) -> Exception:
    message = f"Could not {operation} {key!r} in the object store {url}: {error.strerror or error}."
    match error.errno:
        case full if full in FULL:
            return RetryError(Code.DISK_FULL, message, where=key, hint="Free some space on that disk.")
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return OperatorError(
                Code.NOT_AUTHORIZED, message, where=key, hint="Give this user write access to a file system with links."
            )
        case errno.EISDIR | errno.ENOTDIR | errno.ENOTEMPTY | errno.EEXIST:
            return RequestError(
                Code.BAD_NAME, message, where=key, hint="A key cannot be another object's folder: choose another key."
            )
        case errno.ENAMETOOLONG:
            return RequestError(Code.BAD_NAME, message, where=key, hint="Choose a shorter key.")
        case errno.ENOTSUP | errno.EMLINK | errno.EXDEV:
            return OperatorError(
                Code.WRONG_CONFIGURATION, message, where=key, hint="Use one file system that supports hard links."
            )
        case _:
            return RetryError(Code.UNAVAILABLE, message, where=key, hint="Look at that disk; then try again.")
