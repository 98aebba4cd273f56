"""The index of a Parquet archive: which file holds which table at a version.

`archive/<N>/<table>.parquet`, then `archive/<N>/index.json`, which names for every table the file that holds its rows
at version N: in this folder, or in an older one if it has not changed since. The index is written last: it is
complete or absent.

`outcomes/<N>-<write id>.archive` names the version whose archive answers the `archive` request of version N: N itself,
or the first later version that could be archived. It is created once, before the outcome is published, so that every
notice of it names the same version.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from attrs import frozen

from teatree.contracts.formats.codec import parse_utc, utc_text
from teatree.contracts.formats.manifest import Manifest, ObjectRef, Stub
from teatree.storage.objects.small_objects import create_object, read_members, write_object
from teatree.storage.versions.chain import Chain

_LONG_AGO = datetime.fromtimestamp(0, UTC)


@frozen
class Archived:
    """The archive of one version."""

    version: int
    files: dict[str, ObjectRef]
    """By table: where its rows at this version lie; keys are below the model's folder."""
    written: tuple[str, ...]
    """The tables whose files were written for this version."""
    asked: bool = False
    """Whether a request asked for it: then it is kept as long as versions are."""
    at: datetime = _LONG_AGO
    """When its version was published."""


def archive_key(version: int, table: str) -> str:
    """Return the key of a table's archive file, below the model's folder."""
    return f"archive/{version:020d}/{table}.parquet"


def index_key(version: int) -> str:
    """Return the key of a version's archive index, below the model's folder."""
    return f"archive/{version:020d}/index.json"


def read_archive(chain: Chain, version: int) -> Archived | None:
    """Return the archive of a version, None if it has none (yet); raises `corrupt`."""

    def read(index: Any) -> Archived:
        files = {
            name: ObjectRef(key=t["key"], size_bytes=t["bytes"], checksum=t["checksum"], rows=t["rows"])
            for name, t in index["tables"].items()
        }
        at = parse_utc(index["at"])
        return Archived(version, files, tuple(index["written"]), asked=bool(index.get("asked")), at=at)

    return read_members(chain.store, chain.key(index_key(version)), "The index of an archive", read)


def _answer_key(chain: Chain, manifest: Manifest | Stub) -> str:
    return chain.key(f"outcomes/{manifest.version:020d}-{manifest.write_id}.archive")


def record_answer(chain: Chain, manifest: Manifest, archived_version: int) -> None:
    """Store which version's archive answers the request of a version; the first one stored is final."""
    create_object(chain.store, _answer_key(chain, manifest), {"archive": archived_version})


def read_answer(chain: Chain, manifest: Manifest | Stub) -> int | None:
    """Return which version's archive answers the request of a version; None if none is stored, or no longer."""
    noun = "The record of which archive answers a request"
    return read_members(chain.store, _answer_key(chain, manifest), noun, lambda answer: int(answer["archive"]))


def first_archive_since(chain: Chain, version: int) -> Archived | None:
    """Return the first complete archive of a version or a later one, None if there is none."""
    for info in chain.store.list(chain.key("archive/"), start_after=chain.key(f"archive/{version:020d}")):
        if info.key.endswith("/index.json"):
            return read_archive(chain, int(info.key.split("/")[-2]))
    return None


def archived_versions(chain: Chain) -> list[int]:
    """Return the versions that have a complete archive, ascending."""
    keys = [info.key.split("/") for info in chain.store.list(chain.key("archive/"))]
    return [int(parts[-2]) for parts in keys if parts[-1] == "index.json"]


def write_index(chain: Chain, manifest: Manifest, archived: Archived) -> None:
    """Write a version's index: its archive is complete."""
    tables = {
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
    index = {
        "model": manifest.model,
        "version": manifest.version,
        "at": utc_text(manifest.at),
        "tables": tables,
        "written": list(archived.written),
        "asked": archived.asked,
    }
    write_object(chain.store, chain.key(index_key(manifest.version)), index)
