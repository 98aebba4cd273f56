"""A tiny engine for tests: what the engine interface asks for, and no more. A model is lists of rows in memory.

With `keeps` each commit is also written to a JSON file on this host; without, only published versions outlast a writer.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
from attrs import evolve, frozen
from typing_extensions import override

from memory_state import MemoryState, MemoryTable, read_state, write_whole
from teatree.contracts.errors import Code, CorruptError, RetryError
from teatree.contracts.formats.manifest import ContentPart, Manifest, ObjectRef, PartFiles
from teatree.contracts.formats.requests import Request
from teatree.contracts.formats.steps import Steps
from teatree.contracts.names import fold
from teatree.contracts.settings import LimitSettings
from teatree.contracts.types.schema import Schema
from teatree.contracts.types.table_info import TableInfo
from teatree.engine import base
from teatree.engine.commits import Commit, Identity
from teatree.engine.errors import DamagedFileError, InvalidatedError
from teatree.functions.handles import Parameters
from teatree.storage.versions.chain import Chain
from teatree.storage.versions.packs import checksum


class MemoryHandle(base.EngineHandle):
    """Changes a copy of what is committed."""

    def __init__(self, committed: MemoryState) -> None:
        self.statements = 0
        self.changed_tables: set[str] = set()
        self.written: set[str] = set()
        self.state = committed

    @override
    def infos(self) -> Sequence[TableInfo]:
        return sorted((table.info for table in self.state.tables.values()), key=lambda info: info.name)

    @override
    def count(self, table: str) -> int:
        return len(self.state.tables[fold(table)].rows)

    @override
    def tables(self) -> tuple[str, ...]:
        return tuple(info.name for info in self.infos())

    @override
    def find_table(self, name: str) -> TableInfo | None:
        found = self.state.tables.get(fold(name))
        return found.info if found else None

    @property
    @override
    def tables_chars(self) -> int:
        return sum(info.text_chars for info in self.infos())

    @override
    def query(self, sql: str, parameters: Parameters) -> pa.Table:
        return self.state.query(sql, parameters)

    @override
    def create_table(self, name: str, schema: Schema, primary_key: Sequence[str]) -> None:
        fields = (evolve(c, nullable=c.nullable and c.name not in primary_key) for c in schema)
        self._put(MemoryTable(TableInfo(name, Schema(tuple(fields)), tuple(primary_key))))

    @override
    def drop_table(self, name: str) -> None:
        self.statements += 1
        self.state = evolve(self.state, tables={k: t for k, t in self.state.tables.items() if k != fold(name)})
        self.changed(name)

    @override
    def insert(self, table: TableInfo, rows: pa.Table | pa.RecordBatchReader) -> None:
        self.statements += 1  # also if it fails
        added = rows.to_pylist() if isinstance(rows, pa.Table) else rows.read_all().to_pylist()
        held = self.state.tables[fold(table.name)]
        self._put(held.with_rows([{name: row.get(name) for name in table.schema.names} for row in added]))

    @override
    def clear(self, table: TableInfo) -> None:
        self._put(MemoryTable(table))

    @override
    def changed(self, table: str, *, schema: bool = False) -> None:
        self.changed_tables.add(table)
        self.written.add(table)

    def _put(self, table: MemoryTable) -> None:
        self.statements += 1
        self.state = evolve(self.state, tables={**self.state.tables, fold(table.info.name): table})
        self.changed(table.info.name)


class MemoryConnection(base.WriteConnection):
    """Replaces the committed state by the one that a transaction has made."""

    def __init__(self, committed: MemoryState, file: Path | None) -> None:
        """`file` keeps the state on this host, if it is kept."""
        self.committed = committed
        self.file = file
        self._handle = MemoryHandle(committed)
        self._has_left = False

    @property
    @override
    def handle(self) -> MemoryHandle:
        return self._handle

    @override
    def begin(self, requests: Sequence[Request]) -> None:
        if self._has_left:
            raise RetryError(Code.UNAVAILABLE, "The writer is leaving.")
        self.rollback()

    @override
    def commit(self, commit: Commit, shipped_version: int | None) -> None:
        kept = (c for c in self.committed.commits if c.version >= (shipped_version or 0))
        self.keep(evolve(self._handle.state, commits=(*kept, commit)))

    def keep(self, state: MemoryState) -> None:
        """Make a state the committed one."""
        if self.file is not None:
            write_whole(self.file, state.to_json())
        self.committed = self._handle.state = state

    @override
    def rollback(self) -> None:
        self._handle.state = self.committed
        self._handle.changed_tables = set()

    @override
    def is_committed(self, seq: int) -> bool:
        return any(c.offset == seq for c in self.committed.commits)

    @override
    @contextmanager
    def time_limit(self, limit_ms: int, what: str, requests: Sequence[Request]) -> Iterator[base.TimedBlock]:
        deadline_s = time.monotonic() + limit_ms / 1000

        def check() -> None:
            if time.monotonic() > deadline_s:
                raise RetryError(Code.TIMED_OUT, f"{what} ran longer than {limit_ms} ms.")

        yield SimpleNamespace(check=check)
        check()

    @override
    def leave(self) -> None:
        self._has_left = True


@frozen
class MemoryData(base.ModelData):
    """One model's state."""

    engine: MemoryEngine
    context: base.EngineContext
    held: MemoryConnection

    @property
    @override
    def connection(self) -> MemoryConnection:
        return self.held

    @override
    def identity(self) -> Identity:
        return self.held.committed.identity

    @override
    def commits(self) -> Sequence[Commit]:
        return self.held.committed.commits

    @override
    def adopt(self, shipped_version: int, version: int, write_id: str) -> None:
        beyond = {
            c: evolve(c, version=version, write_id=write_id) for c in self.commits() if c.version > shipped_version
        }
        self.held.keep(evolve(self.held.committed, commits=tuple(beyond.get(c, c) for c in self.commits())))

    @override
    def capture(self, version: int, write_id: str, steps: Steps) -> base.Captured:
        body = self.held.committed.to_json()
        part = ObjectRef(f"parts/{version:020d}-{write_id}.json", len(body), checksum(body))
        content = PartFiles((ContentPart(part),))
        return base.Captured(content, None, (base.Upload(part, body),), steps.then("capture.part"))

    @override
    def shipped(self, captured: base.Captured) -> None:
        """Do nothing: each version holds all."""

    @override
    def restore(self, manifest: Manifest, place: Path) -> None:
        self.engine.restore(self.context.chain, manifest, place)

    @override
    def reopened(self, error: InvalidatedError) -> MemoryData:
        return evolve(self, held=MemoryConnection(self.held.committed, self.held.file))

    @override
    def close(self) -> None:
        """Do nothing: nothing is open."""


@frozen
class MemoryReader(base.VersionReader):
    """A version's tables."""

    state: MemoryState

    @override
    def answer(self, sql: str, parameters: Parameters, limits: LimitSettings) -> pa.Table:
        return self.state.query(sql, parameters)

    @override
    def interrupt(self) -> None:
        """Do nothing: queries are short."""

    @override
    def close(self) -> None:
        """Do nothing: nothing is open."""


@frozen
class MemoryEngine(base.Engine):
    """Holds models in memory; what `restore` writes is a version's JSON part."""

    keeps: bool = True

    @property
    @override
    def name(self) -> str:
        return "memory"

    @override
    def create(self, context: base.EngineContext, place: Path, identity: Identity) -> MemoryData:
        return MemoryData(self, context, MemoryConnection(MemoryState(identity), place if self.keeps else None))

    @override
    def fork(self, context: base.EngineContext, place: Path, source: Manifest, identity: Identity) -> MemoryData:
        made = self.create(context, place, identity)
        origin = _part_of(Chain(context.chain.store, context.chain.prefix, source.model), source)
        made.connection.keep(MemoryState(identity, origin.tables))
        return made

    @override
    def restore(self, chain: Chain, manifest: Manifest, place: Path) -> None:
        write_whole(place, _part_of(chain, manifest).to_json())

    @override
    def open(self, context: base.EngineContext, place: Path, newest: Manifest) -> MemoryData:
        try:
            state = read_state(place.read_bytes(), str(place))
        except CorruptError as e:
            raise DamagedFileError(e.message, where=e.where) from e
        return MemoryData(self, context, MemoryConnection(state, place if self.keeps else None))

    @override
    def read(self, place: Path, limits: LimitSettings, temp: Path | None = None) -> MemoryReader:
        return MemoryReader(read_state(place.read_bytes(), str(place)))


def _part_of(chain: Chain, manifest: Manifest) -> MemoryState:
    assert isinstance(manifest.content, PartFiles)
    (part,) = manifest.content.parts
    body = chain.store.get(chain.key(part.object.key))
    if checksum(body) != part.object.checksum:
        raise CorruptError("The part does not match its hash.", where=part.object.key)
    return read_state(body, part.object.key)
