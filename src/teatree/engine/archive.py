"""Parquet archives: each changed table of a version as one file that any engine reads, under the model's folder.

`archive/<N>/<table>.parquet`, then `archive/<N>/index.json`, which names for every table the file that holds its rows at
version N: in this folder or in an older one if it has not changed since. The index is written last: it is complete or absent.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import orjson
from attrs import frozen

from teatree.contracts.codec import dump_json, utc_text
from teatree.contracts.failpoints import Failpoint
from teatree.contracts.manifest import Manifest, ObjectRef
from teatree.datasets.ddl import quote, quote_literal
from teatree.storage.chain import Chain
from teatree.storage.objects import NotFoundError
from teatree.storage.packs import checksum

ROW_GROUP_ROWS = 122_880
"""Rows of a Parquet row group: DuckDB's own row group, so that neither side splits one."""


@frozen
class Archived:
    """The archive of one version."""

    version: int
    files: dict[str, ObjectRef]
    """By table: where its rows at this version lie; keys are below the model's folder."""
    written: tuple[str, ...]
    """The tables whose files were written for this version."""


def index_key(version: int) -> str:
    """Return the key of a version's archive index, below the model's folder."""
    return f"archive/{version:020d}/index.json"


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
            if old is not None and before is not None and table.changed_in <= before.version and table.name not in wanted:
                files.setdefault(table.name, old)
            elif table.name not in written:
                failpoint("manager.archive.before_table")
                files[table.name] = _write_table(con, chain, manifest.version, table.name, table.rows)
                written.append(table.name)
    archived = Archived(manifest.version, files, tuple(written))
    failpoint("manager.archive.before_index")
    chain.store.put(chain.key(index_key(manifest.version)), _index(manifest, archived))
    return archived


def read_archive(chain: Chain, version: int) -> Archived | None:
    """Return the archive of a version, None if it has none (yet)."""
    try:
        index = orjson.loads(chain.store.get(chain.key(index_key(version))))
    except NotFoundError:
        return None
    files = {
        name: ObjectRef(key=t["key"], size_bytes=t["bytes"], checksum=t["checksum"], rows=t["rows"])
        for name, t in index["tables"].items()
    }
    return Archived(version, files, tuple(index["written"]))


def _write_table(con: duckdb.DuckDBPyConnection, chain: Chain, version: int, table: str, rows: int) -> ObjectRef:
    key = f"archive/{version:020d}/{table}.parquet"
    with tempfile.TemporaryDirectory(prefix="teatree-archive-") as folder:
        path = Path(folder) / "table.parquet"
        con.execute(
            f"COPY (FROM {quote(table)}) TO {quote_literal(str(path))}"
            f" (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {ROW_GROUP_ROWS})"
        )
        digest = checksum(path.read_bytes())
        chain.store.put(chain.key(key), path)
        return ObjectRef(key=key, size_bytes=path.stat().st_size, checksum=digest, rows=rows)


def _index(manifest: Manifest, archived: Archived) -> bytes:
    tables: dict[str, Any] = {
        table.name: {
            "key": archived.files[table.name].key,
            "bytes": archived.files[table.name].size_bytes,
            "rows": archived.files[table.name].rows,
            "checksum": archived.files[table.name].checksum,
            "columns": [{"name": f.name, "type": str(f.dtype), "nullable": f.nullable} for f in table.schema],
            "primary_key": list(table.primary_key),
        }
        for table in manifest.tables
    }
    return dump_json(
        {
            "model": manifest.model,
            "version": manifest.version,
            "at": utc_text(manifest.at),
            "tables": tables,
            "written": list(archived.written),
        }
    )
