"""Writing Parquet archives: each changed table of a version as one file that any engine reads."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import duckdb
from attrs import frozen

from teatree.contracts.errors import CorruptError
from teatree.contracts.formats.manifest import Manifest, ObjectRef, TableEntry
from teatree.contracts.probe import Probe
from teatree.datasets.ddl import quote, quote_literal
from teatree.datasets.parquet import parquet_columns
from teatree.engine.duckdb.errors import translate
from teatree.storage.archives import Archived, archive_key, read_archive, write_index
from teatree.storage.versions.chain import Chain
from teatree.storage.versions.packs import checksum

ROW_GROUP_ROWS = 122_880
"""Rows of a Parquet row group: DuckDB's own row group, so that neither side splits one."""
ROW_GROUP_BYTES = 100_000_000
"""Bytes at which a row group ends earlier, by default: a row group is held in memory until it is complete."""


@frozen
class ArchiveSource:
    """An open version from which tables can be copied."""

    connection: duckdb.DuckDBPyConnection
    folder: Path
    """The only folder into which its statements may write."""
    row_group_bytes: int = ROW_GROUP_BYTES


def write_archive(
    chain: Chain,
    manifest: Manifest,
    source: ArchiveSource,
    before: Archived | None,
    wanted: Sequence[str],
    probe: Probe,
) -> Archived:
    """Archive a version: the `wanted` tables anew, the others where they changed since `before`."""
    found = _whole(chain, manifest.version)  # a damaged index is written anew
    if found is not None and set(wanted) <= set(found.written) and found.asked >= bool(wanted):
        return found
    if before is not None and (before.version > manifest.version or _whole(chain, before.version) is None):
        before = None  # it is of a later version, was cleaned up, or is damaged: all tables are written
    files: dict[str, ObjectRef] = dict(found.files) if found else {}
    written = list(found.written) if found else []
    for table in manifest.tables:
        if table.fault is not None:  # its columns are not known to Teatree; the version's file has the table
            continue
        old = before.files.get(table.name) if before else None
        if old is not None and before is not None and table.changed_in <= before.version and table.name not in wanted:
            files.setdefault(table.name, old)
        elif table.name not in written:
            with probe.step("manager.archive.table", version=manifest.version, table=table.name):
                files[table.name] = _write_table(chain, manifest.version, table, source)
            written.append(table.name)
    asked = bool(wanted) or (found is not None and found.asked)
    archived = Archived(manifest.version, files, tuple(written), asked, manifest.at)
    with probe.step("manager.archive.index", version=manifest.version):
        write_index(chain, manifest, archived)
    return archived


def _whole(chain: Chain, version: int) -> Archived | None:
    try:
        return read_archive(chain, version)
    except CorruptError:
        return None


def _write_table(chain: Chain, version: int, table: TableEntry, source: ArchiveSource) -> ObjectRef:
    key = archive_key(version, table.name)
    with tempfile.TemporaryDirectory(dir=source.folder) as folder:
        path = Path(folder) / "table.parquet"
        try:
            source.connection.execute(
                f"COPY (SELECT {parquet_columns(table.schema)} FROM {quote(table.name)}) TO {quote_literal(str(path))}"
                f" (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {ROW_GROUP_ROWS},"
                f" ROW_GROUP_SIZE_BYTES {source.row_group_bytes})"
            )
        except duckdb.Error as e:
            raise translate(e) from e
        digest = checksum(path.read_bytes())
        chain.store.put(chain.key(key), path)
        return ObjectRef(key=key, size_bytes=path.stat().st_size, checksum=digest, rows=table.rows)
