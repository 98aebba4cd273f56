"""Differences between two versions of a model; only tables that changed in between are read."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING, Self

import duckdb
from attrs import frozen

from teatree.client.versions.attach import Attached
from teatree.contracts.errors import Code, RequestError
from teatree.contracts.formats.manifest import Manifest, ModelState
from teatree.contracts.names import fold
from teatree.contracts.settings import Settings
from teatree.datasets.ddl import quote
from teatree.datasets.table_diff import Table, TableDiff, diff_table, read_tables
from teatree.storage.versions.block_cache import BlockCache
from teatree.storage.versions.blocks import BlockFetcher
from teatree.storage.versions.chain import Chain

if TYPE_CHECKING:
    from collections.abc import Iterator

_BEFORE, _AFTER = "before", "after"


@frozen
class VersionDiff:
    """The differences between two versions, by table; tables without any are left out."""

    model: str
    before: int
    after: int
    tables: tuple[TableDiff, ...]


def diff_versions(
    chain: Chain, settings: Settings, before: int, after: int, *, table: str | None = None, rows_max: int = 0
) -> VersionDiff:
    """Return the differences between two versions; a version without a file has no tables.

    The result holds up to `rows_max` rows of each kind of change. Raises `unknown_version`, `unknown_table`.
    """
    manifests = (chain.get(before), chain.get(after))
    with (
        tempfile.TemporaryDirectory(prefix="teatree-diff-") as folder,  # for what does not fit into memory
        duckdb.connect(":memory:", config={"temp_directory": folder}) as con,
    ):
        con.execute("SET TimeZone = 'UTC'")
        with _Sides(con, chain, manifests, settings) as sides:
            found = tuple(_diffs(con, sides, manifests, table, rows_max))
    return VersionDiff(chain.model, before, after, found)


def _diffs(
    con: duckdb.DuckDBPyConnection,
    sides: _Sides,
    manifests: tuple[Manifest, Manifest],
    table: str | None,
    rows_max: int,
) -> Iterator[TableDiff]:
    there, here = (read_tables(con, name) for name in (_BEFORE, _AFTER))
    wanted = sorted({*there, *here})
    if table is not None:
        if fold(table) not in wanted:
            raise RequestError(
                Code.UNKNOWN_TABLE,
                f"Neither version has a table {table!r}.",
                where="table",
                hint=f"The tables are: {', '.join(t.title for t in {**there, **here}.values())[:1000] or 'none'}.",
            )
        wanted = [fold(table)]
    same = _unchanged(*manifests)
    for name in wanted:
        before, after = _side(_BEFORE, there.get(name)), _side(_AFTER, here.get(name))
        if name in same and before and after:
            continue
        found = sides.read(con, before, after, rows_max)
        if not found.is_empty:
            yield found


def _side(database: str, table: Table | None) -> tuple[str, Table] | None:
    return None if table is None else (database, table)


def _unchanged(before: Manifest, after: Manifest) -> set[str]:
    """Return the folded names of the tables that the same version of the chain changed last: they are equal."""
    there = {entry.name: entry.changed_in for entry in before.tables if entry.changed_in}
    return {fold(entry.name) for entry in after.tables if there.get(entry.name) == entry.changed_in}


class _Sides:
    """Two versions on one connection; shared blocks are fetched once."""

    def __init__(
        self,
        con: duckdb.DuckDBPyConnection,
        chain: Chain,
        manifests: tuple[Manifest, Manifest],
        settings: Settings,
    ) -> None:
        self._attached: list[Attached] = []
        cache = BlockCache(settings.cache_folder, settings.cache.bytes_max) if settings.cache_folder else None
        fetcher = BlockFetcher(chain.store, cache, settings.cache.memory_bytes_max)
        for name, manifest in zip((_BEFORE, _AFTER), manifests, strict=True):
            if manifest.state is not ModelState.ACTIVE:
                con.execute(f"ATTACH ':memory:' AS {quote(name)}")
            else:
                self._attached.append(Attached(con, chain, manifest, fetcher, settings.cache, name))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for attached in self._attached:
            attached.detach()

    def read(
        self,
        con: duckdb.DuckDBPyConnection,
        before: tuple[str, Table] | None,
        after: tuple[str, Table] | None,
        rows_max: int,
    ) -> TableDiff:
        """Return how a table differs; raises the error of the store or of a damaged block, not DuckDB's text of it."""
        try:
            return diff_table(con, before, after, rows_max)
        except duckdb.Error as e:
            for attached in self._attached:
                fault = attached.take_fault()
                if fault is not None:
                    raise fault from e
            raise
