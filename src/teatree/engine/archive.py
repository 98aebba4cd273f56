"""Writing Parquet archives: each changed table of a version as one file that any engine reads."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import duckdb

from teatree.contracts.failpoints import Failpoint
from teatree.contracts.manifest import Manifest, ObjectRef
from teatree.datasets.ddl import quote, quote_literal
from teatree.storage.archives import Archived, archive_key, read_archive, write_index
from teatree.storage.chain import Chain
from teatree.storage.packs import checksum

ROW_GROUP_ROWS = 122_880
"""Rows of a Parquet row group: DuckDB's own row group, so that neither side splits one."""


def write_archive(
    chain: Chain, manifest: Manifest, file: Path, before: Archived | None, wanted: Sequence[str], failpoint: Failpoint
) -> Archived:
    """Archive a version from its local `file`: the `wanted` tables anew, the others where they changed since `before`."""
    found = read_archive(chain, manifest.version)
    if found is not None and set(wanted) <= set(found.written):
        return found
    files: dict[str, ObjectRef] = dict(found.files) if found else {}
    written = list(found.written) if found else []
    with duckdb.connect(str(file), read_only=True, config={"threads": 1}) as con:
        for table in manifest.tables:
            old = before.files.get(table.name) if before else None
            if (
                old is not None
                and before is not None
                and table.changed_in <= before.version
                and table.name not in wanted
            ):
                files.setdefault(table.name, old)
            elif table.name not in written:
                failpoint("manager.archive.before_table")
                files[table.name] = _write_table(con, chain, manifest.version, table.name, table.rows)
                written.append(table.name)
    archived = Archived(manifest.version, files, tuple(written))
    failpoint("manager.archive.before_index")
    write_index(chain, manifest, archived)
    return archived


def _write_table(con: duckdb.DuckDBPyConnection, chain: Chain, version: int, table: str, rows: int) -> ObjectRef:
    key = archive_key(version, table)
    with tempfile.TemporaryDirectory(prefix="teatree-archive-") as folder:
        path = Path(folder) / "table.parquet"
        con.execute(
            f"COPY (FROM {quote(table)}) TO {quote_literal(str(path))}"
            f" (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {ROW_GROUP_ROWS})"
        )
        digest = checksum(path.read_bytes())
        chain.store.put(chain.key(key), path)
        return ObjectRef(key=key, size_bytes=path.stat().st_size, checksum=digest, rows=rows)
