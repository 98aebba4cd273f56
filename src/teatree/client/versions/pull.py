"""Versions in the object store: listing them, and pulling one as a local file."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

from teatree.contracts.errors import Code, CorruptError, DamageWarning, RequestError
from teatree.contracts.formats.manifest import Stub
from teatree.contracts.probe import NO_PROBE, Probe
from teatree.storage.objects.base import NotFoundError
from teatree.storage.versions.history import explain_missing, version_at

if TYPE_CHECKING:
    from teatree.contracts.formats.manifest import Manifest
    from teatree.storage.versions.chain import Chain

READERS = 4
"""Manifests read at the same time for a listing, since each read is mostly latency."""
LISTED_AT_ONCE = 64
"""Manifests read before the first of them is used: limits the memory and the reads in vain."""

PullProgress = Callable[[int, int], None]
"""Called with the bytes in place and those of the whole file."""


@frozen
class VersionInfo:
    """One version, as its manifest describes it."""

    version: int
    kind: str
    """`batch`, or `fence`: a new writer took over and changed nothing."""
    state: str
    at: datetime
    offset: int
    """Sequence in the log up to which everything is applied."""
    user_version: int
    """The newest version up to here that changed a table."""
    file_bytes: int
    """Size of the DuckDB file; 0 while there is no model."""
    pack_bytes: int
    """What this version added to the store."""
    tables: dict[str, int]
    """Rows by table."""
    changed_tables: tuple[str, ...] = ()
    """Tables that its requests wrote."""
    senders: tuple[str, ...] = ()
    """Some of those who sent its requests."""


@frozen
class Pulled:
    """A version that was pulled to this disk."""

    path: Path
    version: int
    size_bytes: int
    moved_bytes: int
    """Bytes fetched from the store for it."""
    fetched_blocks: int
    """Blocks that were not on this disk already."""


def version_info(manifest: Manifest) -> VersionInfo:
    """Return the description of a version from its manifest."""
    return VersionInfo(
        version=manifest.version,
        kind=manifest.kind.value,
        state=manifest.state.value,
        at=manifest.at,
        offset=manifest.offset,
        user_version=manifest.user_version,
        file_bytes=manifest.size_bytes,
        pack_bytes=manifest.pack.size_bytes if manifest.pack else 0,
        tables={table.name: table.rows for table in manifest.tables},
        changed_tables=manifest.changed_tables,
        senders=manifest.senders,
    )


def list_versions(chain: Chain, limit: int) -> list[VersionInfo]:
    """Return the newest `limit` versions, newest first; those cleaned up are left out."""
    return list(islice(_kept(chain), limit))


def _kept(chain: Chain) -> Iterator[VersionInfo]:
    """Yield the versions that have a manifest, newest first; warns of one that vanished."""
    numbers = chain.kept_numbers()
    with ThreadPoolExecutor(READERS, "teatree-versions") as pool:
        while some := list(islice(numbers, LISTED_AT_ONCE)):
            for entry in pool.map(lambda version: _entry_or_damage(chain, version), some):
                if isinstance(entry, CorruptError):
                    warnings.warn(str(entry), DamageWarning, stacklevel=3)
                elif not isinstance(entry, Stub):
                    yield version_info(entry)


def _entry_or_damage(chain: Chain, version: int) -> Manifest | Stub | CorruptError:
    try:
        return chain.entry(version)
    except CorruptError as e:
        return e


def find_version(chain: Chain, version: int | None, at: datetime | str | None = None, *, known: int = 0) -> Manifest:
    """Return the manifest of a version, or of the newest one at the moment `at`, or of the newest one of all.

    `known` is a version that the caller has seen. Raises `unknown_model`, `unknown_version`, `corrupt` if that or any
    other version vanished, `bad_argument` for an invalid moment, `usage` for both a version and a moment.
    """
    if version is not None and at is not None:
        raise RequestError(Code.USAGE, "Name a version or a moment, not both.", where="at")
    if version is not None:
        return chain.get(version)
    newest = chain.newest(known) if at is None else version_at(chain, moment(at))
    if newest is None:
        raise unknown_model(chain)
    return newest


def unknown_model(chain: Chain) -> RequestError:
    """Return the error for a model without any version."""
    return RequestError(
        Code.UNKNOWN_MODEL,
        f"The object store has no model {chain.model!r}.",
        where=chain.folder,
        hint=f"`teatree create {chain.model}` creates it; `teatree models` lists the existing ones.",
    )


def check_model(chain: Chain) -> None:
    """Raise `unknown_model` for a model without any version: otherwise a typing error looks like an empty list."""
    if not chain.end().newest:
        raise unknown_model(chain)


def moment(at: datetime | str) -> datetime:
    """Return a moment in UTC; one without a time zone is this host's local time. Raises `bad_argument`."""
    try:
        return (datetime.fromisoformat(at) if isinstance(at, str) else at).astimezone(UTC)
    except ValueError:
        raise RequestError(
            Code.BAD_ARGUMENT,
            f"{at!r} is not a moment.",
            where="at",
            hint="Write it as 2026-01-31T14:00 in local time, or as 2026-01-31T14:00:00Z.",
        ) from None


def pull_version(
    chain: Chain,
    path: Path,
    *,
    version: int | None = None,
    at: datetime | str | None = None,
    progress: PullProgress | None = None,
    cache_folder: Path | None = None,
    rehash: bool = False,
    probe: Probe = NO_PROBE,
) -> Pulled:
    """Make `path` an ordinary DuckDB file of a version, atomically; only blocks that differ are fetched.

    Blocks that lazy readers left in `cache_folder` are not fetched either. Every fetched block is verified; with
    `rehash` the kept ones are too, even in a file that did not change since it was pulled.
    """
    from teatree.storage.versions.block_cache import BlockCache  # noqa: PLC0415 - numpy and zstd, only for this
    from teatree.storage.versions.pull_state import pulled_version  # noqa: PLC0415
    from teatree.storage.versions.pulled_file import pull_file  # noqa: PLC0415
    from teatree.storage.versions.reader import layout_of  # noqa: PLC0415

    manifest = find_version(chain, version, at, known=pulled_version(path, chain.goal_model_id))
    cache = BlockCache(cache_folder, 0) if cache_folder and cache_folder.is_dir() else None
    try:
        with probe.step("client.pull", model=chain.model, version=manifest.version):
            stats = pull_file(chain.store, manifest, path, progress, cache=cache, rehash=rehash, probe=probe)
    except NotFoundError as e:
        raise explain_missing(chain, manifest, e) from e
    return Pulled(path, manifest.version, layout_of(manifest).size_bytes, stats.moved_bytes, stats.fetched_blocks)
