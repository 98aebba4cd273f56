"""The file of a fork: another model's version, whose blocks stay in that model's packs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from teatree.contracts.errors import Code, CorruptError, RequestError
from teatree.contracts.formats.manifest import Manifest
from teatree.contracts.names import OWN_SCHEMA
from teatree.engine.base import EngineContext
from teatree.engine.duckdb.database import Database
from teatree.engine.duckdb.history import fetch_file
from teatree.functions.history import retry_while_unavailable
from teatree.storage.versions.chain import Chain
from teatree.storage.versions.packs import BlockTable
from teatree.storage.versions.reader import layout_of, read_table


def fetch_fork(context: EngineContext, source: Manifest, path: Path) -> BlockTable:
    """Write the file of another model's version at `path`; return its blocks, with the fork's folder as base 0.

    Raises `unknown_version`, `bad_source` if it is damaged, `source_unavailable` if the store is unavailable.
    """
    store, what = context.chain.store, f"{source.model} could not be read"
    chain = Chain(store, context.chain.prefix, source.model)
    with context.probe.step("fork.fetch", version=source.version):
        retry_while_unavailable(context.limits, what, "from", lambda: fetch_file(chain, source, path))
        table = retry_while_unavailable(context.limits, what, "from", lambda: read_table(store, layout_of(source)))
        return rebased(table, context.chain.folder)


def open_fork(context: EngineContext, source: Manifest, path: Path) -> Database:
    """Open the fetched file; raises `bad_source` if DuckDB cannot."""
    try:
        return Database(path, context.limits, on_stuck=context.on_stuck, clock=context.clock)
    except CorruptError as e:
        raise RequestError(
            Code.BAD_SOURCE,
            f"Version {source.version} of {source.model} cannot be opened: {e.message}",
            where="version",
        ) from e


def rebased(table: BlockTable, folder: str) -> BlockTable:
    """Return a block table with another model's `folder` as base 0, followed by the folders that hold its blocks."""
    bases = [folder]
    numbers = np.zeros(len(table.bases), np.uint16)
    for base in np.unique(table.entries["base"]):
        place = table.bases[int(base)]
        if place not in bases:
            bases.append(place)
        numbers[base] = bases.index(place)
    if tuple(bases) == table.bases:
        return table
    entries = table.entries.copy()
    entries["base"] = numbers[entries["base"]]
    return BlockTable(entries, (), tuple(bases))


def disown(database: Database) -> None:
    """Drop Teatree's own tables of the origin, in the caller's transaction; raises `bad_source` if it is no model."""
    database.rows(f"DROP SCHEMA IF EXISTS {OWN_SCHEMA} CASCADE")
    _check_plain(database)


_UNSUPPORTED_OBJECTS = {
    "schemas": "SELECT schema_name FROM duckdb_schemas() WHERE NOT internal AND schema_name <> 'main'",
    "views": "SELECT view_name FROM duckdb_views() WHERE NOT internal",
    "sequences": "SELECT sequence_name FROM duckdb_sequences()",
    "indexes": "SELECT index_name FROM duckdb_indexes()",
    "macros": "SELECT function_name FROM duckdb_functions() WHERE NOT internal",
    "types": "SELECT type_name FROM duckdb_types() WHERE NOT internal",
    "constraints": "SELECT constraint_text FROM duckdb_constraints()"
    " WHERE constraint_type NOT IN ('PRIMARY KEY', 'NOT NULL')",
    "generated columns": "SELECT table_name FROM duckdb_tables() WHERE sql LIKE '%GENERATED ALWAYS AS%'",
}


def _check_plain(database: Database) -> None:
    """Refuse objects that a model cannot have: any user's published file may hold them, and a `restore` loses them."""
    for kind, query in _UNSUPPORTED_OBJECTS.items():
        where = f"{query} {'AND' if 'WHERE' in query else 'WHERE'} database_name = current_database()"
        found = database.rows(f"{where} LIMIT 1")
        if found:
            raise RequestError(
                Code.BAD_SOURCE,
                f"The version holds {kind}, which a model cannot have: {found[0][0]!r}.",
                where="from",
                hint="A model has plain tables with primary keys.",
            )
