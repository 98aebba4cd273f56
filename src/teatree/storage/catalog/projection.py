"""The catalog as a projection of the chains: versions written into PostgreSQL, or all of it rebuilt."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from teatree.contracts.formats.manifest import Manifest, Stub
from teatree.contracts.formats.notices import Outcome
from teatree.storage.archives import archived_versions, read_archive
from teatree.storage.catalog.catalog import Catalog
from teatree.storage.catalog.rows import (
    ContentRow,
    content_rows,
    model_columns,
    page_rows,
    parquet_row,
    request_rows,
    stub_rows,
    version_row,
)
from teatree.storage.folders import model_chains
from teatree.storage.ledger.segments import Entry, Role, read_segment
from teatree.storage.objects.base import NotFoundError, ObjectStore
from teatree.storage.versions.chain import Chain

READERS = 8
"""Versions read at the same time."""
CHUNK_VERSIONS = 100
"""Versions written in one transaction: bounds its time and what a failure repeats."""

VersionRows = tuple[Manifest | Stub, Sequence[Entry]]
"""A version, or what a clean-up left of it, and the rows of its outcome segment."""
Progress = Callable[[str, int, int], None]
"""Called with a model, the versions written and those there are."""


def record(catalog: Catalog, chain: Chain, rows: Sequence[VersionRows]) -> None:
    """Write versions into the catalog, in their order; newer rows that are there stay."""
    for start in range(0, len(rows), CHUNK_VERSIONS):
        chunk = rows[start : start + CHUNK_VERSIONS]
        url = chain.store.url
        contents: list[ContentRow] = []
        requests = []
        stubs: list[tuple[Stub, Sequence[Outcome]]] = []
        newest: Manifest | None = None
        for manifest, entries in chunk:
            outcomes = [e.outcome for e in entries if e.role is Role.FIRST]
            requests += request_rows(manifest, outcomes)
            if isinstance(manifest, Stub):
                stubs.append((manifest, outcomes))
                continue
            contents += [*content_rows(manifest, url), *page_rows(manifest, outcomes, url)]
            newest = manifest
        contents += _left_of(chain, stubs)
        if newest is None:
            catalog.record_contents(contents)
            catalog.record_requests(requests)
            continue
        versions = [version_row(m) for m, _ in chunk if isinstance(m, Manifest)]
        catalog.record_versions(model_columns(newest, url), versions, contents, requests)


def _left_of(chain: Chain, stubs: Sequence[tuple[Stub, Sequence[Outcome]]]) -> list[ContentRow]:
    """Return the rows of the objects that are left of cleaned-up versions: each is looked up."""

    def exists(key: str) -> bool:
        return chain.store.head(chain.key(key)) is not None

    with ThreadPoolExecutor(READERS, "teatree-left") as pool:
        rows = pool.map(lambda stub: stub_rows(stub[0], stub[1], chain.store.url, exists), stubs)
        return [row for left in rows for row in left]


def record_archive(catalog: Catalog, chain: Chain, manifest: Manifest | Stub) -> None:
    """Write a version's Parquet files into the catalog, if its archive is complete."""
    catalog.record_contents(_archive_rows(chain, manifest))


def _record_archives(catalog: Catalog, chain: Chain) -> None:
    with ThreadPoolExecutor(READERS, "teatree-archives") as pool:
        archived = pool.map(lambda version: _archive_rows(chain, chain.entry(version)), archived_versions(chain))
        catalog.record_contents([row for rows in archived for row in rows])


def _archive_rows(chain: Chain, manifest: Manifest | Stub) -> list[ContentRow]:
    archived = read_archive(chain, manifest.version)
    if archived is None:
        return []
    return [parquet_row(manifest, name, archived.files[name], chain.store.url) for name in archived.written]


def read_version_rows(chain: Chain, versions: Iterable[int]) -> Iterator[VersionRows]:
    """Yield versions with their outcomes from the store, some at a time; without outcomes that were cleaned up."""
    with ThreadPoolExecutor(READERS, "teatree-rows") as pool:
        yield from pool.map(lambda version: _read_rows(chain, version), versions)


def _read_rows(chain: Chain, version: int) -> VersionRows:
    manifest = chain.entry(version)
    try:
        return manifest, read_segment(chain.store, chain.folder, manifest)
    except NotFoundError:
        if isinstance(manifest, Manifest):
            raise
        return manifest, ()


def rebuild(store: ObjectStore, catalog: Catalog, prefix: str, progress: Progress | None = None) -> dict[str, int]:
    """Write the whole catalog anew from the chains; return the number of versions of each model."""
    catalog.clear()
    counts: dict[str, int] = {}
    for chain in model_chains(store, prefix):
        newest = chain.newest_version()
        for first in range(1, newest + 1, CHUNK_VERSIONS):
            last = min(first + CHUNK_VERSIONS - 1, newest)
            record(catalog, chain, list(read_version_rows(chain, range(first, last + 1))))
            if progress:
                progress(chain.model, last, newest)
        _record_archives(catalog, chain)
        counts[chain.model] = newest
    return counts
