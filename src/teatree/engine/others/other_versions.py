"""Versions of other models for functions: read-only, locked down, their blocks fetched as queries need them.

They are attached to one database in memory, apart from the writer's: what goes wrong while one is read ends a request,
never the model that reads it. Joins with the model's own tables take the rows of a query on the other version.

Concurrency: one thread uses it, except `interrupt`.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import duckdb
from attrs import define, frozen
from typing_extensions import override

from teatree.contracts.errors import Code, CorruptError, OperatorError, RequestError, TeatreeError
from teatree.contracts.formats.manifest import Manifest
from teatree.contracts.formats.provenance import VersionRead
from teatree.contracts.names import check_model, new_id
from teatree.contracts.settings import CacheSettings, LimitSettings
from teatree.contracts.shown import shown
from teatree.datasets.ddl import quote, quote_literal
from teatree.engine.duckdb.errors import translate
from teatree.engine.duckdb.guard.guard import lock_down
from teatree.engine.duckdb.version_access import VersionAccess
from teatree.engine.duckdb.watchdog import Watchdog
from teatree.engine.errors import DamagedFileError, InvalidatedError
from teatree.functions.history import retry_while_unavailable
from teatree.functions.others import Others, OtherVersion
from teatree.storage.objects.base import NotFoundError, ObjectStore
from teatree.storage.versions.block_cache import BlockCache
from teatree.storage.versions.blocks import BlockFetcher, VersionFile
from teatree.storage.versions.chain import Chain
from teatree.storage.versions.history import explain_missing
from teatree.storage.versions.reader import layout_of

if TYPE_CHECKING:
    from teatree.storage.versions.lazy_files import LazyFiles

T = TypeVar("T")
OPEN_MAX = 8
"""Versions attached at the same time; the one that was used least recently makes place."""
MEMORY_PART = 4
"""Divisor of the writer's memory limit: what queries on other versions may take beside it."""
_FOLDER = "versions"
"""Where the attached files lie, for DuckDB: the only place that its database may open."""


class OtherVersions(Others):
    """Attaches versions of any model of one installation."""

    def __init__(
        self,
        store: ObjectStore,
        prefix: str,
        limits: LimitSettings,
        cache: CacheSettings,
        cache_folder: Path | None = None,
    ) -> None:
        """`cache_folder` keeps blocks on this host, for all processes of this user."""
        self._store = store
        self._prefix = prefix
        self._limits = limits
        self._cache = cache
        self._cache_folder = cache_folder
        self._database: AttachedVersions | None = None
        self._newest: dict[str, int] = {}
        """The newest version of each model that was found so far."""

    @override
    def open(self, model: str, version: int | None) -> OtherVersion:
        chain = Chain(self._store, self._prefix, check_model(model))
        database = self._opened()
        if version is not None and (access := database.find(chain, version)) is not None:
            return OtherVersion(VersionRead(model, version), access)
        what = f"{model} could not be read"
        manifest = retry_while_unavailable(self._limits, what, "version", lambda: self._find(chain, version))
        access = database.find(chain, manifest.version) or retry_while_unavailable(
            self._limits, what, "version", lambda: database.attach(chain, manifest)
        )
        return OtherVersion(VersionRead(model, manifest.version), access)

    @override
    def interrupt(self) -> None:
        database = self._database
        if database is not None:
            database.interrupt()

    @override
    def close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def _opened(self) -> AttachedVersions:
        """Return the database, a new one after one that DuckDB invalidated."""
        if self._database is not None and self._database.is_void:
            self.close()
        if self._database is None:
            cache = BlockCache(self._cache_folder, self._cache.bytes_max) if self._cache_folder else None
            fetcher = BlockFetcher(self._store, cache, self._cache.memory_bytes_max)
            self._database = AttachedVersions(fetcher, self._limits, self._cache.read_ahead_bytes_max)
        return self._database

    def _find(self, chain: Chain, version: int | None) -> Manifest:
        if version is not None and (not isinstance(version, int) or isinstance(version, bool)):
            raise RequestError(Code.BAD_ARGUMENT, f"A version is a number, not {shown(version)}.", where="version")
        try:
            known = self._newest.get(chain.model, 0)
            found = chain.newest(known) if version is None else chain.get(version)
            if found is not None:
                layout_of(found)
        except RequestError as e:
            e.where = "version"
            raise
        except CorruptError as e:
            raise _damaged(chain.model, version, e) from e
        if found is None:
            raise RequestError(Code.UNKNOWN_MODEL, f"The object store has no model {chain.model!r}.", where="model")
        self._newest[chain.model] = max(known, found.version)
        return found


@frozen
class _Attached:
    """A version that is attached, and the connection that reads it."""

    name: str
    alias: str
    connection: duckdb.DuckDBPyConnection
    access: VersionAccess


@define
class _RunningRead:
    """The connection of the read that runs: the watchdog's thread must not keep the database."""

    connection: duckdb.DuckDBPyConnection | None = None

    def interrupt(self) -> None:
        reads = self.connection
        if reads is not None:
            with suppress(duckdb.Error):  # it was closed a moment ago
                reads.interrupt()


class AttachedVersions:
    """One database in memory to which versions are attached."""

    def __init__(self, fetcher: BlockFetcher, limits: LimitSettings, ahead_bytes_max: int) -> None:
        from teatree.storage.versions.lazy_files import LazyFiles  # noqa: PLC0415 - fsspec, only for this

        self._fetcher = fetcher
        self._limits = limits
        self._ahead_bytes_max = ahead_bytes_max
        self._files = LazyFiles(f"teatree-{new_id()}")
        self._attached: OrderedDict[tuple[str, int], _Attached] = OrderedDict()
        """By the model's id and the version, the one that was used last at the end."""
        self._count = 0
        self.is_void = False
        """Whether DuckDB invalidated it."""
        self._con = _locked_database(self._files, limits)
        self._running = _RunningRead()
        self._watchdog = Watchdog(self._running.interrupt)
        # DuckDB must not hold a Python filesystem any more when the interpreter exits.
        parts = (self._con, self._attached, self._files, self._fetcher, self._watchdog)
        self._end = weakref.finalize(self, _end, *parts)

    def find(self, chain: Chain, version: int) -> VersionAccess | None:
        """Return the access to a version that is attached, None if it is not."""
        key = (chain.goal_model_id, version)
        found = self._attached.get(key)
        if found is None:
            return None
        self._attached.move_to_end(key)
        return found.access

    def attach(self, chain: Chain, manifest: Manifest) -> VersionAccess:
        """Return read access to a version, attached now; raises what its store raises, or `bad_source`."""
        while len(self._attached) >= OPEN_MAX:
            self._detach(self._attached.popitem(last=False)[1])
        attached = self._attach(chain, manifest)
        self._attached[chain.goal_model_id, manifest.version] = attached
        return attached.access

    def interrupt(self) -> None:
        """Make the read that runs fail as `timed_out`; any thread may call it."""
        self._running.interrupt()

    def close(self) -> None:
        """Detach all versions and close the database."""
        self._end()

    def _attach(self, chain: Chain, manifest: Manifest) -> _Attached:
        name = f"{_FOLDER}/{manifest.goal_model_id}/{manifest.version}-{manifest.write_id}.duckdb"
        file = VersionFile(self._fetcher, layout_of(manifest), self._ahead_bytes_max)

        def explain(error: TeatreeError) -> TeatreeError:
            return explain_missing(chain, manifest, error) if isinstance(error, NotFoundError) else error

        path = self._files.add(name, file, explain)
        self._count += 1
        alias = f"version_{self._count}"
        connection = self._con.cursor()

        def run(work: Callable[[], T]) -> T:
            return retry_while_unavailable(
                self._limits,
                f"Version {manifest.version} of {manifest.model} could not be read",
                "version",
                lambda: self._read(manifest, connection, work),
            )

        def attach() -> None:
            connection.execute(f"ATTACH {quote_literal(path)} AS {quote(alias)} (READ_ONLY)")
            connection.execute(f"USE {quote(alias)}")

        try:
            self._read(manifest, connection, attach)
        except BaseException:
            connection.close()
            self._files.forget(name)
            raise
        return _Attached(name, alias, connection, VersionAccess(connection, self._limits, run))

    def _detach(self, attached: _Attached) -> None:
        attached.connection.close()
        self._con.execute(f"DETACH DATABASE IF EXISTS {quote(attached.alias)}")
        self._files.forget(attached.name)

    def _read(self, manifest: Manifest, connection: duckdb.DuckDBPyConnection, work: Callable[[], T]) -> T:
        """Run a read within its time; its errors are those of a request, whatever the version holds."""
        self._files.take_fault()
        self._running.connection = connection
        try:
            with self._watchdog.limit(self._limits.query_time_ms_max, f"The query on {manifest.model}", "sql"):
                return _translated(work)
        except TeatreeError as e:
            fault = self._files.take_fault()
            if fault is None:
                fault = e
                self.is_void = self.is_void or isinstance(e, OperatorError) or _is_invalidated(e)
            if isinstance(fault, OperatorError) or _is_invalidated(fault):
                raise _damaged(manifest.model, manifest.version, fault) from e
            if fault is e:
                raise
            raise fault from e
        finally:
            self._running.connection = None


def _translated(work: Callable[[], T]) -> T:
    try:
        return work()
    except duckdb.Error as e:
        raise translate(e) from e


def _is_invalidated(error: TeatreeError) -> bool:
    """Return whether an error is one that the engine would take for damage of the model's own file."""
    return isinstance(error, DamagedFileError | InvalidatedError)


def _locked_database(files: LazyFiles, limits: LimitSettings) -> duckdb.DuckDBPyConnection:
    con = duckdb.connect(
        ":memory:",
        config={
            "threads": limits.threads,
            "memory_limit": f"{limits.memory_bytes_max // MEMORY_PART}B",
            "temp_directory": "",  # it would lie in the working directory
        },
    )
    try:
        con.register_filesystem(files)
        with suppress(duckdb.CatalogException):  # see `teatree.client.versions.attach`: `VersionFile` reads ahead
            con.execute("SET GLOBAL storage_block_prefetch = 'NEVER'")
        con.execute("SET GLOBAL TimeZone = 'UTC'")
        con.execute(f"SET allowed_directories = [{quote_literal(f'{files.protocol}://{_FOLDER}')}]")
        lock_down(con)
    except BaseException:
        con.close()
        raise
    return con


def _end(
    con: duckdb.DuckDBPyConnection,
    attached: Mapping[Any, _Attached],
    files: LazyFiles,
    fetcher: BlockFetcher,
    watchdog: Watchdog,
) -> None:
    watchdog.close()
    for each in attached.values():
        each.connection.close()
    with suppress(duckdb.Error):
        con.unregister_filesystem(files.protocol)
    con.close()
    fetcher.close()


def _damaged(model: str, version: int | None, error: TeatreeError) -> RequestError:
    named = "The newest version" if version is None else f"Version {version}"
    return RequestError(
        Code.BAD_SOURCE,
        f"{named} of {model} cannot be read: {error.message}",
        where="version",
        hint="Take another version; `teatree verify` reports which are damaged.",
    )
