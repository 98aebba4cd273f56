"""The manifest of one version: the commit point of everything (docs/decisions/0003)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Literal

from attrs import field, frozen
from blake3 import blake3

from teatree.contracts.errors import CorruptError, RequestError
from teatree.contracts.formats.codec import (
    absent_if_default,
    dump_json,
    parse_json,
    structure,
    tolerate_unknown_keys,
    unstructure,
)
from teatree.contracts.formats.provenance import AppCode
from teatree.contracts.formats.requests import LogPosition
from teatree.contracts.types.schema import Schema

FORMAT = 1
BLOCKS: Final = "blocks"
PARTS: Final = "parts"
"""The kinds of content that this release reads."""


class ManifestKind(StrEnum):
    """Why a manifest was written."""

    FENCE = "fence"
    """A new writer's first manifest: its predecessor's content under a new epoch."""
    BATCH = "batch"
    """A batch of requests moved the offset."""


class ModelState(StrEnum):
    """Whether the model exists at this version."""

    ABSENT = "absent"
    ACTIVE = "active"
    DROPPED = "dropped"


@frozen
class ObjectRef:
    """An object beside the manifest: its key below the model's folder, bytes and blake3 (hex)."""

    key: str
    size_bytes: int
    checksum: str
    rows: int = 0


@frozen
class Extent:
    """A zstd frame within a pack."""

    pack: str
    """Key of the pack, from the store's root."""
    offset: int
    length: int
    checksum: str
    """blake3 (hex) of the bytes before compression."""


@frozen
class FileLayout:
    """A version's content in blocks: a DuckDB file's header part and blocks, found through a table of leaves."""

    kind: Literal["blocks"] = field(default=BLOCKS, kw_only=True)
    """How an engine stores the content."""
    size_bytes: int
    block_bytes: int
    block_count: int
    header: Extent
    leaves: tuple[Extent, ...]
    """The block table, `storage.packs.LEAF_ENTRIES` entries a leaf; leaf i describes blocks i*LEAF_ENTRIES and on."""
    bases: tuple[str, ...]
    """Folders of the packs that entries name by number; 0 is the model's own."""


@frozen
class ContentPart:
    """An object that holds rows and never changes; versions share it."""

    object: ObjectRef
    table: str | None = None
    """The table whose rows it holds; None if it holds all of the model."""


@frozen
class PartFiles:
    """A version's content in parts."""

    kind: Literal["parts"] = field(default=PARTS, kw_only=True)
    parts: tuple[ContentPart, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes of all parts."""
        return sum(part.object.size_bytes for part in self.parts)


Content = FileLayout | PartFiles
"""A version's data as its engine stores them, tagged by `kind`."""


@frozen
class StreamStamp:
    """Which log an offset belongs to: the stream's name and the moment it was created, by its server's clock."""

    name: str
    created: str


NO_LOG = StreamStamp(name="", created="")
"""The stamp in the manifests of a published file, which has no log."""


@frozen
class LedgerRef:
    """Where the remembered ids lie: sorted runs, then the outcome segments that no run holds yet."""

    runs: tuple[ObjectRef, ...] = ()
    tail: tuple[int, ...] = ()
    """Versions whose outcome segments follow the runs, ascending."""
    remember_days: int = 0
    """Days for which its writer remembers ids: a clean-up keeps their outcomes as long."""


@frozen
class TableEntry:
    """One user table at this version."""

    name: str
    schema: Schema
    """Empty if the table has a fault."""
    rows: int
    primary_key: tuple[str, ...] = ()
    changed_in: int = 0
    """The version that changed it last: its archive lies under that number."""
    fault: str | None = None
    """Why its columns cannot be described: it is in the file, not in archives, and only `drop_table` takes it."""


@frozen
class ModelOptions:
    """What `create_model` chose; kept here so that a rebuilt catalog lacks nothing."""

    engine: str = "duckdb"
    storage_version: str | None = None
    app: str | None = None
    limits: dict[str, int] = field(factory=dict)


@frozen
class Incarnation:
    """The model's present incarnation in the log, and the end of the one before."""

    created_seq: int = 0
    """Sequence of the `create_model` request; 0 while absent."""
    dropped_seq: int = 0
    """Sequence of the last `drop_model` request; 0 if there was none."""


@frozen
class ForkPoint:
    """The version that a model began as a fork of."""

    model: str
    goal_model_id: str
    version: int


@frozen
class Manifest:
    """Everything that a version is; a reader needs nothing else but the objects it names."""

    model: str
    goal_model_id: str
    version: int
    write_id: str
    """Random, 16 hex digits: distinguishes our own manifest, whose reply was lost, from another writer's."""
    parent_write_id: str
    """The write id of version - 1; empty for version 1."""
    kind: ManifestKind
    epoch: int
    """The number of the writer's fence manifest."""
    state: ModelState
    at: datetime
    """When it was written, by the writer's clock, never before its predecessor's."""
    log_at: datetime
    """JetStream's time of the last request it holds."""
    offset: int
    """Sequence in the log up to which everything is applied."""
    stream: StreamStamp
    content_version: int
    """The newest batch manifest up to here: fences repeat its content."""
    content_write_id: str
    user_version: int
    """The newest version up to here that changed user tables."""
    last_effect_seq: int
    """Sequence of the last request that took effect."""
    announced_version: int
    """The version up to which all outcomes were known to be published when this was written."""
    incarnation: Incarnation = Incarnation()
    fork_of: ForkPoint | None = None
    """Where the present incarnation began, if it began as a fork."""
    options: ModelOptions = ModelOptions()
    content: Content | None = None
    """None while there is no model: `state` shows that."""
    tables: tuple[TableEntry, ...] = ()
    pack: ObjectRef | None = None
    """The pack written for this version; None if nothing changed."""
    outcomes: ObjectRef | None = None
    """This version's outcome segment."""
    ledger: LedgerRef = LedgerRef()
    changed_tables: tuple[str, ...] = ()
    app: AppCode | None = None
    """The code of its app, if it has one."""
    senders: tuple[str, ...] = ()
    """Some of those who sent its requests, sorted; its outcome segment has them all."""
    traceparents: tuple[str, ...] = ()
    """Some of the traces to which its requests belong, sampled ones first; its outcome segment has them all."""
    step_us: Mapping[str, int] = field(factory=dict)
    """Microseconds that each step up to this manifest took, in their order."""
    writer: dict[str, Any] = field(factory=dict)
    """Host and process of the writer, for people."""
    format: int = FORMAT

    @property
    def position(self) -> LogPosition:
        """The last request that it holds; sequence 0 if there is none."""
        return LogPosition(self.offset, self.log_at)

    @property
    def blocks(self) -> FileLayout | None:
        """The content, if it is stored in blocks."""
        return self.content if isinstance(self.content, FileLayout) else None

    @property
    def size_bytes(self) -> int:
        """Bytes of the content; 0 if there is none."""
        return self.content.size_bytes if self.content is not None else 0

    def to_json(self) -> bytes:
        """Return the manifest's bytes: one JSON object whose member `checksum` covers the rest."""
        return _sealed(self)


@frozen
class Stub:
    """What a clean-up leaves of a manifest under its key, so that the key is never free (docs/decisions/0015)."""

    model: str
    goal_model_id: str
    version: int
    write_id: str
    parent_write_id: str
    epoch: int
    at: datetime
    log_at: datetime
    offset: int
    pack: ObjectRef | None = None
    """Later versions may refer to its blocks."""
    outcomes: ObjectRef | None = None
    """Its outcome segment outlives the version: the ledger answers resends from it."""
    stub: bool = True
    format: int = FORMAT

    def to_json(self) -> bytes:
        """Return the stub's bytes, with a checksum as a manifest has."""
        return _sealed(self)


def stub_of(manifest: Manifest) -> Stub:
    """Return the stub of a version that is cleaned up."""
    return Stub(
        model=manifest.model,
        goal_model_id=manifest.goal_model_id,
        version=manifest.version,
        write_id=manifest.write_id,
        parent_write_id=manifest.parent_write_id,
        epoch=manifest.epoch,
        at=manifest.at,
        log_at=manifest.log_at,
        offset=manifest.offset,
        pack=manifest.pack,
        outcomes=manifest.outcomes,
    )


def read_manifest(body: bytes, where: str) -> Manifest:
    """Return the manifest in `body`; raises `corrupt` if it is damaged, a stub, or of a format that we do not know."""
    found = read_entry(body, where)
    if isinstance(found, Stub):
        raise CorruptError("The version was cleaned up: this is the stub of its manifest.", where=where)
    return found


def read_entry(body: bytes, where: str) -> Manifest | Stub:
    """Return what lies under a manifest's key; raises `corrupt` if it is damaged or of a format that we do not know."""
    try:
        members = parse_json(body, where)
    except RequestError as e:
        raise CorruptError(f"The manifest is damaged: {e.message}", where=where) from e
    if not isinstance(members, dict) or "checksum" not in members:
        raise CorruptError("This is not a manifest.", where=where)
    if members.get("format") != FORMAT:
        raise CorruptError(
            f"The manifest has format {members.get('format')}; this release reads {FORMAT}.",
            where=where,
            hint="Use a newer release of teatree.",
        )
    checksum = members.pop("checksum")
    if blake3(dump_json(members)).hexdigest() != checksum:
        raise CorruptError("The manifest's checksum does not match its content.", where=where)
    _check_content(members.get("content"), where)
    if members.get("stub") is True:
        return structure(members, Stub, where)
    return structure(members, Manifest, where)


def _check_content(content: Any, where: str) -> None:
    """Refuse content that this release cannot read, by its tag: such a manifest is not damaged."""
    if isinstance(content, dict) and content.get("kind") not in (BLOCKS, PARTS):
        raise CorruptError(
            f"The version's content is stored as {content.get('kind')!r}; this release reads {BLOCKS!r} and {PARTS!r}.",
            where=where,
            hint="Use a newer release of teatree.",
        )


def _sealed(entry: Manifest | Stub) -> bytes:
    members = unstructure(entry)
    return dump_json({**members, "checksum": blake3(dump_json(members)).hexdigest()})


absent_if_default(ObjectRef, LedgerRef, TableEntry, ModelOptions, Incarnation)
absent_if_default(ContentPart)
absent_if_default(FileLayout, PartFiles, always=("kind",))
absent_if_default(Manifest, always=("format",))
absent_if_default(Stub, always=("stub", "format"))
tolerate_unknown_keys(Manifest)
tolerate_unknown_keys(Stub)
