"""What publishes versions of a user's DuckDB file (docs/decisions/0014).

The chain is that of a model without a log: the same packs and manifests, offset 0, a stream stamp without a name. It
holds all of the publisher's state; nothing is stored in the user's file or beside it.
"""

from __future__ import annotations

import os
import secrets
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from attrs import frozen

from teatree.contracts.clock import SYSTEM_CLOCK, Clock
from teatree.contracts.errors import Code, CorruptError, FencedError, RequestError, RetryError
from teatree.contracts.formats.manifest import NO_LOG, Manifest, ManifestKind, ModelState, TableEntry
from teatree.contracts.types.schema import Schema
from teatree.datasets.catalog_tables import read_tables
from teatree.datasets.ddl import MAIN_SCHEMA, quote, table_label
from teatree.engine.duckdb.changes import Checkpoint
from teatree.engine.duckdb.snapshot import Capture, capture
from teatree.engine.duckdb.user_file import UserFile
from teatree.storage.disk import translating_disk_full
from teatree.storage.objects.probe import ensure_probed
from teatree.storage.versions.chain import Chain
from teatree.storage.versions.head import advance_head
from teatree.storage.versions.packs import BlockTable, checksum
from teatree.storage.versions.reader import HEADER_BYTES, read_table

RACES_MAX = 50
"""Tries of a first version against concurrent publishers: each lost race is a version that another one made."""
READS_MAX = 5
"""Times that a file is read if its user checkpoints it meanwhile."""
_FENCED_HINT = "Look at that version (`teatree diff`), then open the file again to continue from it."


@frozen
class Published:
    """A version that is in the store now."""

    model: str
    version: int
    is_new: bool
    """False if the file is what the newest version holds already: nothing was written."""
    size_bytes: int
    pack_bytes: int
    """Bytes that it added to the store."""
    tables: dict[str, int]
    """Rows by table."""


class FilePublisher:
    """Publishes one open file under one name. `publish` may be called while other threads write."""

    def __init__(self, file: UserFile, chain: Chain, clock: Clock = SYSTEM_CLOCK) -> None:
        self._file = file
        self._clock = clock
        self._chain = chain
        self._lock = threading.Lock()
        self._last: Manifest | None = None
        self._table: BlockTable | None = None
        self._checkpoint: Checkpoint | None = None
        self._unsure: tuple[Manifest, BlockTable, Checkpoint | None] | None = None
        """A version whose creation was not confirmed: it may exist."""

    def publish(self) -> Published:
        """Publish the committed state as the next version, and return it; the newest one if nothing differs from it.

        Only changed blocks are uploaded. Raises `fenced` if another publisher used this name since this one's last
        version, `model_exists` if the name belongs to a model with a log, `corrupt` for a damaged block.
        """
        with self._lock:
            for tries_left in reversed(range(RACES_MAX)):
                try:
                    return self._publish()
                except FencedError:
                    if self._last is not None or not tries_left:
                        raise
                    self._table = None
        raise AssertionError  # the last try returns or raises

    def _publish(self) -> Published:
        if self._unsure is not None:
            unsure, self._unsure = self._unsure, None
            self._create(*unsure)
        if self._last is None:
            ensure_probed(self._chain.store)
        newest = self._base()
        table = self._table if self._table is not None else self._table_of(newest)
        version = newest.version + 1 if newest else 1
        write_id = secrets.token_hex(8)
        with tempfile.TemporaryDirectory(prefix="teatree-publish-") as folder:
            captured, tables = self._capture(table, version, write_id, Path(folder))
            if newest is not None and _is_same(newest, captured):
                self._last, self._table, self._checkpoint = newest, table, captured.checkpoint
                return self._published(newest, is_new=False)
            manifest = self._manifest(newest, version, write_id, captured, tables)
            self._chain.store.put(self._chain.key(captured.pack.key), captured.path)
        self._create(manifest, captured.table, captured.checkpoint)
        return self._published(manifest, is_new=True)

    def _create(self, manifest: Manifest, table: BlockTable, checkpoint: Checkpoint | None) -> None:
        try:
            self._chain.create(manifest)
        except RetryError:
            self._unsure = (manifest, table, checkpoint)
            raise
        except FencedError as e:
            e.hint = _FENCED_HINT
            raise
        self._last, self._table, self._checkpoint = manifest, table, checkpoint

    def _published(self, manifest: Manifest, *, is_new: bool) -> Published:
        """Return what was published, after advancing `head`: a version that existed already may lack that."""
        advance_head(self._chain.store, self._chain.folder, manifest)
        return _published(manifest, is_new=is_new)

    def _base(self) -> Manifest | None:
        """Return the newest version; after this publisher's first one it must be its own."""
        newest = self._chain.newest(self._last.version if self._last else 0)
        if newest is not None and newest.stream != NO_LOG:
            raise RequestError(
                Code.MODEL_EXISTS,
                f"{self._chain.model!r} is a model of an installation in this store: its manager publishes it.",
                where="name",
                hint="Publish under another name.",
            )
        if self._last is not None and (newest is None or newest.write_id != self._last.write_id):
            error = FencedError(
                f"Version {newest.version if newest else 0} of {self._chain.model} was published by another publisher"
                " since.",
                where=self._chain.folder,
            )
            error.hint = _FENCED_HINT
            raise error
        return newest

    def _table_of(self, newest: Manifest | None) -> BlockTable:
        if newest is None or newest.blocks is None:
            return BlockTable.empty(self._chain.folder)
        return read_table(self._chain.store, newest.blocks)

    def _capture(
        self, table: BlockTable, version: int, write_id: str, folder: Path
    ) -> tuple[Capture, tuple[TableEntry, ...]]:
        file = self._file
        damage: CorruptError | None = None
        for _ in range(READS_MAX):
            damage = None
            try:
                with translating_disk_full("A pack", folder), file.checkpointed():
                    header = file.read_at(0, HEADER_BYTES)
                    captured = capture(file, table, self._checkpoint, version, write_id, self._chain.folder, folder)
                    tables = tuple(_tables(file))
                    if file.read_at(0, HEADER_BYTES) == header and captured.layout.header.checksum == checksum(header):
                        return captured, tables
            except CorruptError as e:  # a transaction may be writing a block that is not in use yet
                damage = e
        if damage is not None:
            raise damage
        raise RetryError(
            Code.BUSY,
            f"{self._file.path.name} was checkpointed by its user repeatedly while it was read.",
            where=str(self._file.path),
            hint="Leave checkpoints to `publish` meanwhile.",
        )

    def _manifest(
        self,
        newest: Manifest | None,
        version: int,
        write_id: str,
        captured: Capture,
        tables: tuple[TableEntry, ...],
    ) -> Manifest:
        now = self._clock.now()
        return Manifest(
            model=self._chain.model,
            goal_model_id=self._chain.goal_model_id,
            version=version,
            write_id=write_id,
            parent_write_id=newest.write_id if newest else "",
            kind=ManifestKind.BATCH,
            # A publisher's first version is its fence: the chain takes one number from one writer only.
            epoch=self._last.epoch if self._last else version,
            state=ModelState.ACTIVE,
            at=max(now, newest.at) if newest else now,
            log_at=now,
            offset=0,
            stream=NO_LOG,
            content_version=version,
            content_write_id=write_id,
            user_version=version,
            last_effect_seq=0,
            announced_version=version,
            content=captured.layout,
            tables=tables,
            pack=captured.pack,
            changed_tables=tuple(sorted(entry.name for entry in tables)),
            writer={"host": socket.gethostname(), "pid": os.getpid(), "file": self._file.path.name},
        )


def _is_same(newest: Manifest, captured: Capture) -> bool:
    return (
        not captured.blocks
        and newest.blocks is not None
        and newest.blocks.header.checksum == captured.layout.header.checksum
    )


def _tables(file: UserFile) -> Iterator[TableEntry]:
    """Yield the tables as the open transaction sees them; columns of types that models do not have are left out."""
    places = file.rows(
        "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = current_database() AND NOT internal"
        " ORDER BY schema_name, table_name"
    )
    infos = {info.name: info for info in read_tables(file.own_connection)}
    for schema, table in places:
        ((rows,),) = file.rows(f"SELECT count(*) FROM {quote(schema)}.{quote(table)}")
        label = table_label(schema, table)
        if schema == MAIN_SCHEMA:
            info = infos[table]
            yield TableEntry(label, info.schema, rows, info.primary_key, fault=info.fault)
        else:
            yield TableEntry(label, Schema(()), rows, fault=f"It lies in the schema {schema!r}, not main.")


def _published(manifest: Manifest, *, is_new: bool) -> Published:
    return Published(
        model=manifest.model,
        version=manifest.version,
        is_new=is_new,
        size_bytes=manifest.size_bytes,
        pack_bytes=manifest.pack.size_bytes if manifest.pack and is_new else 0,
        tables={entry.name: entry.rows for entry in manifest.tables},
    )
