"""The DuckDB engine: a model is one DuckDB file, a version's content its blocks."""

from __future__ import annotations

from pathlib import Path

from typing_extensions import override

from teatree.contracts.errors import RetryError, TeatreeError
from teatree.contracts.formats.manifest import Manifest
from teatree.contracts.settings import LimitSettings
from teatree.engine.base import Engine, EngineContext
from teatree.engine.commits import Identity
from teatree.engine.duckdb.changes import check_length
from teatree.engine.duckdb.commit_table import create_own_tables
from teatree.engine.duckdb.data import CaptureBase, DuckDBData
from teatree.engine.duckdb.database import Database
from teatree.engine.duckdb.fork_file import disown, fetch_fork, open_fork
from teatree.engine.duckdb.open_version import OpenVersion
from teatree.engine.duckdb.snapshot import captured_checkpoint
from teatree.engine.errors import DamagedFileError, damage_of_file
from teatree.storage.versions.chain import Chain
from teatree.storage.versions.packs import BlockTable
from teatree.storage.versions.reader import layout_of, materialise, read_table


class DuckDBEngine(Engine):
    """Holds a model in one DuckDB file."""

    @property
    @override
    def name(self) -> str:
        return "duckdb"

    @override
    def create(self, context: EngineContext, place: Path, identity: Identity) -> DuckDBData:
        storage_version = identity.options.storage_version
        database = Database(place, context.limits, storage_version, context.on_stuck, context.clock)
        return _claimed(context, database, BlockTable.empty(context.chain.folder), identity, is_fork=False)

    @override
    def fork(self, context: EngineContext, place: Path, source: Manifest, identity: Identity) -> DuckDBData:
        table = fetch_fork(context, source, place)
        return _claimed(context, open_fork(context, source, place), table, identity, is_fork=True)

    @override
    def restore(self, chain: Chain, manifest: Manifest, place: Path) -> None:
        materialise(chain.store, manifest, place)

    @override
    def open(self, context: EngineContext, place: Path, newest: Manifest) -> DuckDBData:
        layout = layout_of(newest)
        table = read_table(context.chain.store, layout)
        with damage_of_file():
            database = Database(place, context.limits, on_stuck=context.on_stuck, clock=context.clock)
        try:
            check_length(database)
            base = CaptureBase(table, captured_checkpoint(database, layout))
        except BaseException as e:
            database.close()
            if isinstance(e, RetryError) or not isinstance(e, TeatreeError):
                raise
            raise DamagedFileError(e.message, where=e.where) from e
        return DuckDBData(context, database, base)

    @override
    def read(self, place: Path, limits: LimitSettings, temp: Path | None = None) -> OpenVersion:
        return OpenVersion(place, limits, temp=temp)


def _claimed(
    context: EngineContext, database: Database, table: BlockTable, identity: Identity, *, is_fork: bool
) -> DuckDBData:
    """Return a file as the data of a new model; `table` has the blocks of it that are in the store."""
    try:
        with database.transaction():
            if is_fork:
                disown(database)
            create_own_tables(database, identity)
    except BaseException:
        database.close()
        raise
    return DuckDBData(context, database, CaptureBase(table, None))
