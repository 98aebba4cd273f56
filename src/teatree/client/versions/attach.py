"""A version attached to a caller's DuckDB connection: read-only, its blocks fetched as queries need them."""

from __future__ import annotations

import atexit
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import duckdb
from attrs import evolve

from teatree.client.versions.pull import find_version
from teatree.contracts.environment import process_environ, read_settings
from teatree.contracts.errors import Code, OperatorError, RequestError, TeatreeError
from teatree.contracts.formats.manifest import Manifest, ModelState
from teatree.contracts.names import check_model, new_id
from teatree.contracts.settings import CacheSettings, Settings, store_at
from teatree.datasets.ddl import quote, quote_literal
from teatree.storage.objects.base import NotFoundError
from teatree.storage.objects.stores import open_store
from teatree.storage.versions.block_cache import BlockCache
from teatree.storage.versions.blocks import BlockFetcher, FetchStats, VersionFile
from teatree.storage.versions.chain import Chain
from teatree.storage.versions.history import explain_missing
from teatree.storage.versions.lazy_files import LazyFiles
from teatree.storage.versions.reader import layout_of

JOIN_S = 10.0
"""Seconds that `detach` waits for a running check for newer versions."""


def attach(
    con: duckdb.DuckDBPyConnection,
    model: str,
    *,
    version: int | None = None,
    at: datetime | str | None = None,
    follow: bool = False,
    alias: str | None = None,
    store: str | None = None,
    data: str | Path | None = None,
    settings: Settings | None = None,
) -> Attached:
    """Attach a version of a model to a DuckDB connection, as the read-only database `alias` (the model's name).

    The newest version, or `version`, or the newest one at the moment `at`. Nothing is copied: blocks come from the
    object store when a query needs them, and stay in a cache on disk that all processes of this user share. With
    `follow` the alias moves to each newer version between queries; a running query or transaction keeps its version.

    Where the store is: `settings`; else the environment and, beneath it, `<data>/teatree.env`; `store` is another URL.
    A query that needs a missing or damaged block fails; `Attached.take_fault` then returns the error itself.

    Raises `unknown_model`, `unknown_version`, `usage` for an alias that is taken, or what the store raises.
    """
    if settings is None:
        settings = read_settings(process_environ(), None if data is None else Path(data))
    if store is not None:
        settings = evolve(settings, store=store_at(settings.store, store))
    chain = Chain(open_store(settings.store), settings.nats.prefix, check_model(model))
    return attach_chain(con, chain, settings, version=version, at=at, follow=follow, alias=alias)


def attach_chain(
    con: duckdb.DuckDBPyConnection,
    chain: Chain,
    settings: Settings,
    *,
    version: int | None = None,
    at: datetime | str | None = None,
    follow: bool = False,
    alias: str | None = None,
) -> Attached:
    """Attach a version from an open chain; the parameters are those of `attach`."""
    if follow and (version is not None or at is not None):
        raise RequestError(
            Code.USAGE,
            "`follow` cannot be combined with `version` or `at`.",
            where="follow",
            hint="Leave out version and at.",
        )
    manifest = find_version(chain, version, at)
    cache = BlockCache(settings.cache_folder, settings.cache.bytes_max) if settings.cache_folder else None
    fetcher = BlockFetcher(chain.store, cache, settings.cache.memory_bytes_max)
    attached = Attached(con, chain, manifest, fetcher, settings.cache, alias or chain.model)
    if follow:
        attached.start_following()
    return attached


class Attached:
    """A model on a connection. Its methods may be called from any thread."""

    def __init__(
        self,
        con: duckdb.DuckDBPyConnection,
        chain: Chain,
        manifest: Manifest,
        fetcher: BlockFetcher,
        limits: CacheSettings,
        alias: str,
    ) -> None:
        """Attach the version that `manifest` describes."""
        self.alias = alias
        self.error: TeatreeError | None = None
        """Why the last check for a newer version failed, None if it succeeded; the attached version does not change."""
        self._stop = threading.Event()
        stop = self._stop.set
        self._con: Callable[[], duckdb.DuckDBPyConnection | None] = weakref.ref(con, lambda _: stop())
        self._manifest = manifest
        self._open_name = ""
        self._chain = chain
        self._fetcher = fetcher
        self._limits = limits
        self._lock = threading.Lock()
        self._follower: threading.Thread | None = None
        # DuckDB keeps the filesystem while anything can read through it, and the filesystem keeps this object.
        self._files = LazyFiles(f"teatree-{new_id()}")
        self._files.owner = self
        con.register_filesystem(self._files)
        try:
            self._switch(manifest, "ATTACH")
        except BaseException:
            con.unregister_filesystem(self._files.protocol)
            fetcher.close()
            raise
        # DuckDB must not hold a Python filesystem any more when the interpreter exits.
        self._at_exit = _AtExit(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.detach()

    def __repr__(self) -> str:
        return f"Attached({self.alias!r}, version={self.version})"

    @property
    def version(self) -> int:
        """The version that the next query reads."""
        return self._manifest.version

    @property
    def manifest(self) -> Manifest:
        """The manifest of that version."""
        return self._manifest

    def stats(self) -> FetchStats:
        """Return what all versions attached here have fetched so far."""
        return self._fetcher.stats()

    def take_fault(self) -> TeatreeError | None:
        """Return the error of a read since the last call, None if there was none.

        DuckDB raises an exception that carries only the text of it.
        """
        return self._files.take_fault()

    def refresh(self) -> int:
        """Move to the newest version, if there is a newer one with a file; return the version attached then.

        A running query or transaction keeps its version. Raises what the store raises.
        """
        with self._lock:
            number = self._chain.newest_version(self._manifest.version)
            if number > self._manifest.version:
                newest = self._chain.newest(number)
                if newest is not None and newest.state is ModelState.ACTIVE:
                    if newest.content_write_id != self._manifest.content_write_id:
                        before = self._open_name
                        self._switch(newest, "ATTACH OR REPLACE")
                        self._files.forget(before)
                    self._manifest = newest
            return self._manifest.version

    def start_following(self) -> None:
        """Look for newer versions in a thread, until `detach` or the end of the connection."""
        if self._follower is None:
            self._follower = threading.Thread(target=self._follow, name=f"teatree-follow-{self.alias}", daemon=True)
            self._follower.start()

    def detach(self) -> None:
        """Detach the database, after the end of a running query; does nothing the second time."""
        self._stop.set()
        if self._follower is not None and self._follower is not threading.current_thread():
            self._follower.join(JOIN_S)
        self._at_exit.forget()
        with self._lock:
            con, self._con = self._con(), lambda: None
            if con is None:
                return
            try:
                with _aside(con) as cursor:
                    cursor.execute(f"DETACH DATABASE IF EXISTS {quote(self.alias)}")
                    cursor.unregister_filesystem(self._files.protocol)
            except duckdb.ConnectionException:
                return  # closed, and detached with that
            finally:
                self._fetcher.close()

    def _follow(self) -> None:
        while not self._stop.wait(self._limits.follow_poll_ms / 1000):
            try:
                con = self._con()
                if con is None:
                    return
                _aside(con).close()  # raises if the connection is closed
                del con
                self.refresh()
                self.error = None
            except TeatreeError as e:
                self.error = e
            except duckdb.ConnectionException:
                return  # closed

    def _switch(self, manifest: Manifest, verb: str) -> None:
        """Attach a version under the alias."""
        file = VersionFile(self._fetcher, layout_of(manifest), self._limits.read_ahead_bytes_max)

        def explain(error: TeatreeError) -> TeatreeError:
            return self._explain(error, manifest)

        # DuckDB identifies files by path, so each version has a different one.
        name = f"{manifest.model}/{manifest.version}-{manifest.write_id}.duckdb"
        path = self._files.add(name, file, explain)
        con = self._con()
        if con is None:
            raise duckdb.ConnectionException("The connection is closed.")
        try:
            with _aside(con) as cursor:
                # DuckDB 2.0's prefetching outlives a DETACH and then crashes the process; `VersionFile` reads ahead.
                with suppress(duckdb.CatalogException, duckdb.InvalidInputException):  # unknown to it, or locked
                    cursor.execute("SET GLOBAL storage_block_prefetch = 'NEVER'")
                cursor.execute(f"{verb} {quote_literal(path)} AS {quote(self.alias)} (READ_ONLY)")
        except duckdb.ConnectionException:
            raise
        except duckdb.Error as e:
            self._files.forget(name)
            raise self._files.take_fault() or self._attach_error(e, manifest) from e
        self._open_name = name

    def _explain(self, error: TeatreeError, manifest: Manifest) -> TeatreeError:
        """Return the error that a reader of this version gets for an error of the store."""
        return explain_missing(self._chain, manifest, error) if isinstance(error, NotFoundError) else error

    def _attach_error(self, error: duckdb.Error, manifest: Manifest) -> TeatreeError:
        text = str(error).splitlines()[0]
        where = f"{manifest.model}, version {manifest.version}"
        if "already exists" in text:
            return RequestError(
                Code.USAGE,
                f"The connection has a database {self.alias!r} already.",
                where="alias",
                hint="Choose another alias.",
            )
        if isinstance(error, duckdb.PermissionException):
            return RequestError(Code.USAGE, "The connection may open no files (enable_external_access).", where="con")
        return OperatorError(
            Code.WRONG_CONFIGURATION,
            f"This DuckDB ({duckdb.__version__}) cannot open the version: {text}",
            where=where,
            hint="Use the DuckDB that the model's storage_version requires, or a newer one.",
        )


def _aside(con: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    """Return a connection to the same database that `con` does not track.

    `con.close()` fails while one of its cursors is busy, so this is the cursor of a cursor that is released at once.
    """
    between = con.cursor()
    return between.cursor()


class _AtExit:
    """Detaches what is still attached when the process exits, without keeping it alive until then."""

    def __init__(self, attached: Attached) -> None:
        self._attached = weakref.ref(attached)
        atexit.register(self._run)

    def forget(self) -> None:
        """Do nothing when the process exits."""
        atexit.unregister(self._run)

    def _run(self) -> None:
        attached = self._attached()
        if attached is not None:
            attached.detach()
