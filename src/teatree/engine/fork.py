"""Forks: models created from another model's version, whose blocks stay in that model's packs.

The origin's version is pinned before anything of it is read, and so are the versions of which it was forked: their
packs hold blocks of the fork for as long as the fork exists.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from attrs import evolve, frozen

from teatree.contracts.clock import Clock
from teatree.contracts.errors import Code, CorruptError, RequestError
from teatree.contracts.manifest import ForkPoint, Manifest, ModelOptions
from teatree.contracts.names import OWN_SCHEMA
from teatree.contracts.settings import LimitSettings
from teatree.engine.duckdb.database import Database, OnStuck
from teatree.engine.history import fetch_file
from teatree.engine.model_context import ModelContext
from teatree.functions.history import retry_while_unavailable
from teatree.functions.model_arguments import ForkSource
from teatree.storage.retention.pins import find_pin, pin, pin_key
from teatree.storage.versions.chain import Chain
from teatree.storage.versions.packs import BlockTable
from teatree.storage.versions.reader import layout_of, read_table

T = TypeVar("T")


@frozen
class Fork:
    """A version of the origin whose file was fetched."""

    point: ForkPoint
    table: BlockTable
    """Its blocks, with the fork's folder as base 0."""
    options: ModelOptions
    """The fork's own."""
    release: Callable[[], None]
    """Removes the pins again, if the fork fails."""


def fetch_fork(context: ModelContext, fork_source: ForkSource, wanted: ModelOptions, seq: int, path: Path) -> Fork:
    """Pin the origin's version and write its file at `path`; `seq` is the request's place in the log.

    Raises `unknown_model`, `unknown_version`, `bad_argument` for a storage version that is not the origin's,
    `bad_source` if it is damaged, `source_unavailable` if the store is unavailable.
    """
    chain = context.chain
    source = Chain(chain.store, chain.prefix, fork_source.model)
    name = f"fork-{chain.goal_model_id}-{seq}"  # the same if the request is applied again after a crash

    def retrying(work: Callable[[], T]) -> T:
        return retry_while_unavailable(context.limits, f"{fork_source.model} could not be read", "from", work)

    try:
        version = retrying(lambda: _choose(fork_source, source, name))
    except RequestError as e:
        raise _placed(e) from e.__cause__
    release = partial(retrying, lambda: _release(source, version, name))
    try:
        with context.probe.step("fork.pin", version=version):
            manifest = retrying(lambda: _pinned(source, version, name, f"{chain.model} is a fork of it"))
        options = _options(wanted, manifest)
        with context.probe.step("fork.fetch", version=version):
            retrying(lambda: fetch_file(source, manifest, path))
            table = rebased(retrying(lambda: read_table(chain.store, layout_of(manifest))), chain.folder)
    except RequestError as e:
        release()
        raise _placed(e) from e.__cause__
    return Fork(ForkPoint(source.model, source.goal_model_id, version), table, options, release)


def _placed(error: RequestError) -> RequestError:
    """Return an error about the origin's version, its `where` set to the argument that named it."""
    if error.code in (Code.UNKNOWN_VERSION, Code.BAD_SOURCE):
        error.where = "from.version"
    return error


def _choose(fork_source: ForkSource, source: Chain, name: str) -> int:
    """Return the version to fork; the pin of an earlier try keeps its choice of the newest."""
    held = find_pin(source, name)
    version = held.version if held else fork_source.version or source.newest_version()
    if not version:
        raise RequestError(
            Code.UNKNOWN_MODEL,
            f"There is no model {fork_source.model!r}.",
            where="from.model",
            hint="`teatree models` lists those there are.",
        )
    layout_of(source.get(version))
    return version


def _pinned(source: Chain, version: int, name: str, note: str) -> Manifest:
    """Pin a version and its ancestors, and return its manifest as it is then."""
    pin(source, name, version, note)
    for chain, number in _ancestors(source, version):
        pin(chain, name, number, note)
    return source.get(version)


def _ancestors(chain: Chain, version: int) -> Iterator[tuple[Chain, int]]:
    """Yield the versions of which a version was forked, nearest first."""
    while (point := chain.get(version).fork_of) is not None:
        chain, version = Chain(chain.store, chain.prefix, point.model), point.version
        yield chain, version


def _release(source: Chain, version: int, name: str) -> None:
    """Remove the pins of a fork; those that were not set yet are skipped."""
    keys = [pin_key(source, name)]
    with suppress(RequestError):  # the version was cleaned up, so none of its ancestors was pinned
        keys += [pin_key(chain, name) for chain, _ in _ancestors(source, version)]
    source.store.delete(keys)


def _options(wanted: ModelOptions, fork_source: Manifest) -> ModelOptions:
    there = fork_source.options.storage_version
    if wanted.storage_version not in (None, there):
        raise RequestError(
            Code.BAD_ARGUMENT,
            f"{fork_source.model} has the storage version {there or 'latest'}, and so has its fork.",
            where="storage_version",
            hint="Leave it out.",
        )
    return evolve(wanted, engine=fork_source.options.engine, storage_version=there)


def open_fork(fork: Fork, path: Path, limits: LimitSettings, on_stuck: OnStuck | None, clock: Clock) -> Database:
    """Open the fetched file; raises `bad_source` if DuckDB cannot."""
    try:
        return Database(path, limits, on_stuck=on_stuck, clock=clock)
    except CorruptError as e:
        raise RequestError(
            Code.BAD_SOURCE,
            f"Version {fork.point.version} of {fork.point.model} cannot be opened: {e.message}",
            where="from.version",
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
