"""Verification of a model's versions: their objects in the store, and that DuckDB reads every row."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

import duckdb
from attrs import define, field, frozen

from teatree.client.versions.pull import find_version
from teatree.contracts.errors import Code, CorruptError, DamageWarning, RetryError
from teatree.contracts.formats.manifest import NO_LOG, Manifest, Stub
from teatree.contracts.names import OWN_SCHEMA
from teatree.datasets.ddl import MAIN_SCHEMA, quote, table_label
from teatree.storage.disk import FULL
from teatree.storage.versions.chain import Chain
from teatree.storage.versions.head import check_head
from teatree.storage.versions.verification import (
    FileCheck,
    Finding,
    Findings,
    check_link,
    check_object,
    check_outcomes,
    total_bytes,
)

VerifyProgress = Callable[[int, int], None]
"""Called with the bytes of files that were checked, and about how many there are in all."""


@frozen
class VerifyReport:
    """What was checked, and what is wrong."""

    model: str
    versions: int
    """Versions that were checked."""
    cleaned_up: int
    """Versions of which a clean-up left only a stub; only their links are checked."""
    blocks: int
    """Blocks that were hashed, each location in a pack once."""
    tables: int
    rows: int
    """Rows that DuckDB read, of all tables of each version."""
    findings: tuple[Finding, ...]
    findings_count: int
    """Number of all findings; `findings` holds the first ones."""

    @property
    def is_right(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings_count


@define
class _Counts:
    versions: int = 0
    cleaned_up: int = 0
    tables: int = 0
    rows: int = 0
    findings: Findings = field(factory=lambda: Findings([]))


def verify(
    chain: Chain,
    *,
    version: int | None = None,
    at: datetime | str | None = None,
    all_versions: bool = False,
    progress: VerifyProgress | None = None,
    scratch: Path | None = None,
) -> VerifyReport:
    """Check a version (the newest), or with `all_versions` the whole history, and return what is wrong.

    Every block against its hash and DuckDB's own checksum, pack and outcome segment against theirs, the link to the
    version before; then DuckDB reads every row of every table from exactly these bytes. The file is written to
    `scratch` (the system's temporary folder) meanwhile.

    Raises `unknown_model`, `unknown_version`, `disk_full`, or `unavailable`.
    """
    counts = _Counts()
    manifests = _manifests(chain, version, at, counts, all_versions=all_versions)
    blocks = _check_files(chain, manifests, counts, progress, scratch)
    return VerifyReport(
        model=chain.model,
        versions=counts.versions,
        cleaned_up=counts.cleaned_up,
        blocks=blocks,
        tables=counts.tables,
        rows=counts.rows,
        findings=tuple(counts.findings.found),
        findings_count=counts.findings.count,
    )


def _manifests(
    chain: Chain, version: int | None, at: datetime | str | None, counts: _Counts, *, all_versions: bool
) -> list[Manifest]:
    """Return the versions to check, their links to their predecessors checked."""
    known = chain.end().known if all_versions and version is None and at is None else 0
    if known:  # the newest version may be damaged
        return list(_history(chain, known, counts))
    manifest = _find(chain, version, at, counts)
    return list(_history(chain, manifest.version, counts) if all_versions else _alone(chain, manifest, counts))


def _check_files(
    chain: Chain,
    manifests: Sequence[Manifest],
    counts: _Counts,
    progress: VerifyProgress | None,
    scratch: Path | None,
) -> int:
    """Check the objects and files of the versions; return the number of blocks that were hashed."""
    total = total_bytes(manifests)
    done = 0

    def advance(size_bytes: int) -> None:
        nonlocal done
        done += size_bytes
        if progress:
            progress(min(done, total), total)

    try:
        with tempfile.TemporaryDirectory(prefix="teatree-verify-", dir=scratch) as folder:
            path = Path(folder) / "version.duckdb"
            with path.open("w+b", buffering=0) as file:
                check = FileCheck(chain, file, counts.findings, advance)
                for manifest in manifests:
                    _check_version(chain, manifest, check, path, counts)
                return check.blocks
    except OSError as e:
        code = Code.DISK_FULL if e.errno in FULL else Code.UNAVAILABLE
        raise RetryError(
            code, f"The version could not be written: {e.strerror}.", hint="Name a folder with room for its file."
        ) from e


def _find(chain: Chain, version: int | None, at: datetime | str | None, counts: _Counts) -> Manifest:
    """Return the version to check; other vanished versions near the newest become findings."""
    end = chain.end()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DamageWarning)  # they are findings here
        manifest = find_version(chain, version, at)
    for missing in end.missing:
        counts.findings.add(missing, chain.missing_error(missing, end.newest))
    with counts.findings.collect(end.newest):
        check_head(chain.store, chain.folder)
    return manifest


def _alone(chain: Chain, manifest: Manifest, counts: _Counts) -> Iterator[Manifest]:
    """Yield one version, its link to its predecessor checked."""
    if manifest.version > 1:
        with counts.findings.collect(manifest.version):
            before = chain.entry(manifest.version - 1)
            check_link(before, manifest, chain.manifest_key(manifest.version))
    yield manifest


def _history(chain: Chain, newest: int, counts: _Counts) -> Iterator[Manifest]:
    """Yield all manifests up to the newest, their links checked; a damaged one becomes a finding and is skipped."""
    with counts.findings.collect(newest):
        check_head(chain.store, chain.folder)
    before: Manifest | Stub | None = None
    for number in range(1, newest + 1):
        found: Manifest | Stub | None = None
        with counts.findings.collect(number):
            found = chain.entry(number)
        if found is not None and before is not None:
            with counts.findings.collect(number):
                check_link(before, found, chain.manifest_key(number))
        if isinstance(found, Stub):
            counts.cleaned_up += 1
        elif found is not None:
            yield found
        before = found


def _check_version(chain: Chain, manifest: Manifest, check: FileCheck, path: Path, counts: _Counts) -> None:
    counts.versions += 1
    with counts.findings.collect(manifest.version):
        check_outcomes(chain, manifest)
    if manifest.pack is not None:
        with counts.findings.collect(manifest.version):
            check_object(chain, manifest.pack)
    if manifest.blocks is not None and check.check(manifest, manifest.blocks):
        _read_tables(path, manifest, counts)


def _read_tables(path: Path, manifest: Manifest, counts: _Counts) -> None:
    """Read every row of all tables, and compare with the manifest."""
    where = f"version {manifest.version}"
    try:
        with duckdb.connect(str(path), read_only=True) as con:
            tables = con.execute("SELECT schema_name, table_name FROM duckdb_tables() WHERE NOT internal").fetchall()
            own = None if manifest.stream == NO_LOG else OWN_SCHEMA  # a file without a log has no tables of Teatree
            labels = {
                (schema, name): name if own and schema == MAIN_SCHEMA else table_label(schema, name)
                for schema, name in tables
            }
            users = {label for (schema, _), label in labels.items() if schema != own}
            entries = {entry.name: entry for entry in manifest.tables}
            if users != entries.keys():
                differ = ", ".join(sorted(users ^ entries.keys()))
                error = CorruptError(f"The file's tables are not those of the manifest: {differ}.", where=where)
                counts.findings.add(manifest.version, error)
            for schema, name in tables:
                label = labels[schema, name]
                entry = entries.get(label) if schema != own else None
                rows = _read_table(con, schema, name)
                counts.tables += 1
                counts.rows += rows
                if entry is not None and rows != entry.rows:
                    error = CorruptError(
                        f"The table has {rows} rows instead of {entry.rows}.", where=f"{where}, {label}"
                    )
                    counts.findings.add(manifest.version, error)
    except duckdb.Error as e:
        error = CorruptError(f"DuckDB cannot read the file: {str(e).splitlines()[0]}", where=where)
        counts.findings.add(manifest.version, error)


def _read_table(con: duckdb.DuckDBPyConnection, schema: str, name: str) -> int:
    """Return a table's rows after reading every value of them."""
    place = f"{quote(schema)}.{quote(name)}"
    columns = [row[0] for row in con.execute(f"DESCRIBE {place}").fetchall()]
    values = ", ".join(quote(column) for column in columns)
    row = con.execute(f"SELECT count(*), bit_xor(hash({values})) FROM {place}").fetchone()
    return int(row[0]) if row else 0
