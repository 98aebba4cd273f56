"""The catalog's rows, made from manifests and outcomes by pure functions: a rebuild gives the same rows."""

from __future__ import annotations

import uuid
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from attrs import frozen
from blake3 import blake3

from teatree.contracts.formats.codec import unstructure
from teatree.contracts.formats.manifest import Manifest, ManifestKind, ModelState, ObjectRef, Stub
from teatree.contracts.names import ANONYMOUS
from teatree.storage.objects.base import object_uri

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from teatree.contracts.formats.notices import Outcome
    from teatree.contracts.formats.requests import Request


class ContentKind(StrEnum):
    """What an object holds."""

    SNAPSHOT = "snapshot"
    """A manifest: from it the whole database file is assembled."""
    PACK = "pack"
    OUTCOMES = "outcomes"
    PARQUET = "parquet"
    """The archive of one table."""
    PAGE = "page"
    """A page of a query's result."""


class RequestState(StrEnum):
    """How far a request is; all but the first are final."""

    STARTED = "started"
    DONE = "done"
    REJECTED = "rejected"
    FAILED = "failed"


@frozen
class ModelColumns:
    """The columns of a model that its newest version determines."""

    goal_model_id: uuid.UUID
    name: str
    engine: str
    lifecycle: str
    """`absent`, `active` or `dropped`."""
    version: int
    applied_offset: int
    epoch: int
    options: dict[str, Any]
    tables: tuple[dict[str, Any], ...]
    """`name`, `rows`, `primary_key`, `changed_in`, `columns` (`name`, `type`, `nullable`)."""
    size_bytes: int
    store_url: str


@frozen
class ModelRow:
    """A model's row in the catalog."""

    goal_model_id: uuid.UUID
    name: str
    engine: str
    lifecycle: str
    state: str
    """`absent`, `active` or `dropped`; `damaged` or `stopped` while there is an error, `waits` while requests wait."""
    version: int
    applied_offset: int
    epoch: int
    options: dict[str, Any]
    tables: list[dict[str, Any]]
    size_bytes: int
    store_url: str | None
    error: dict[str, Any] | None
    """`code`, `message`, `where`: why the model stopped for an operator."""
    damage: dict[str, str] | None
    """What the scrubber found in the store, by version."""
    waits: str | None
    """Why requests wait."""
    writer: dict[str, Any] | None
    """The process that holds the lease; see `lease.Holder`."""
    lease_until: datetime | None
    created_at: datetime
    updated_at: datetime


@frozen
class VersionRow:
    """A version's manifest in short."""

    goal_model_id: uuid.UUID
    version: int
    write_id: str
    kind: str
    epoch: int
    applied_offset: int
    user_version: int
    at: datetime
    log_at: datetime
    size_bytes: int
    """Of the whole database file."""
    pack_bytes: int
    """Of what this version added to the store."""
    requests: int
    changed_tables: tuple[str, ...]


@frozen
class ContentRow:
    """An object in the store."""

    goal_model_id: uuid.UUID
    version: int
    kind: ContentKind
    uri: str
    rows: int
    bytes: int
    checksum: str
    """blake3 (hex) of the object's bytes."""
    at: datetime
    table_name: str | None = None


@frozen
class RequestRow:
    """A request and how it ended."""

    goal_model_id: uuid.UUID
    request_id: str
    seq: int
    function: str
    state: RequestState
    accepted_at: datetime
    version: int | None = None
    result: Any = None
    error: dict[str, Any] | None = None
    group_id: str | None = None
    finished_at: datetime | None = None
    sender: str | None = None
    """Who published it; None if no one was named."""
    traceparent: str | None = None
    tables: tuple[str, ...] | None = None
    """The tables that it wrote; None if it wrote none."""


def model_columns(manifest: Manifest, store_url: str) -> ModelColumns:
    """Return the columns of a manifest's model."""
    return ModelColumns(
        goal_model_id=uuid.UUID(manifest.goal_model_id),
        name=manifest.model,
        engine=manifest.options.engine,
        lifecycle=str(manifest.state),
        version=manifest.version,
        applied_offset=manifest.offset,
        epoch=manifest.epoch,
        options=unstructure(manifest.options),
        tables=tuple(
            {
                "name": table.name,
                "rows": table.rows,
                "primary_key": list(table.primary_key),
                "changed_in": table.changed_in,
                "columns": [{"name": f.name, "type": str(f.dtype), "nullable": f.nullable} for f in table.schema],
            }
            for table in manifest.tables
        ),
        size_bytes=manifest.size_bytes,
        store_url=store_url,
    )


def version_row(manifest: Manifest) -> VersionRow:
    """Return a manifest's row."""
    return VersionRow(
        goal_model_id=uuid.UUID(manifest.goal_model_id),
        version=manifest.version,
        write_id=manifest.write_id,
        kind=str(manifest.kind),
        epoch=manifest.epoch,
        applied_offset=manifest.offset,
        user_version=manifest.user_version,
        at=manifest.at,
        log_at=manifest.log_at,
        size_bytes=manifest.size_bytes,
        pack_bytes=manifest.pack.size_bytes if manifest.pack else 0,
        requests=manifest.outcomes.rows if manifest.outcomes else 0,
        changed_tables=manifest.changed_tables,
    )


def content_rows(manifest: Manifest, store_url: str) -> list[ContentRow]:
    """Return the rows of the objects that a version's commit wrote, without archives and result pages."""
    if manifest.kind is not ManifestKind.BATCH:
        return []
    found: list[ContentRow] = []
    if manifest.state is ModelState.ACTIVE:
        body = manifest.to_json()
        rows = sum(table.rows for table in manifest.tables)
        own = ObjectRef(f"manifests/{manifest.version:020d}", len(body), blake3(body).hexdigest(), rows)
        found.append(_content_row(manifest, store_url, ContentKind.SNAPSHOT, own))
    if manifest.pack is not None:
        found.append(_content_row(manifest, store_url, ContentKind.PACK, manifest.pack))
    if manifest.outcomes is not None:
        found.append(_content_row(manifest, store_url, ContentKind.OUTCOMES, manifest.outcomes))
    return found


def page_rows(manifest: Manifest, outcomes: Iterable[Outcome], store_url: str) -> list[ContentRow]:
    """Return the rows of the result pages that a version's queries wrote."""
    return [_content_row(manifest, store_url, ContentKind.PAGE, ref) for ref in _page_refs(outcomes)]


def _page_refs(outcomes: Iterable[Outcome]) -> list[ObjectRef]:
    pages = (page for outcome in outcomes for page in outcome.pages)
    return [ObjectRef(page["ref"], page["bytes"], page["checksum"], page["rows"]) for page in pages]


def stub_rows(
    stub: Stub, outcomes: Iterable[Outcome], store_url: str, exists: Callable[[str], bool]
) -> list[ContentRow]:
    """Return the rows of the objects that are left of a cleaned-up version; `exists` checks a key."""
    refs = [(ContentKind.PACK, stub.pack), (ContentKind.OUTCOMES, stub.outcomes)]
    refs += [(ContentKind.PAGE, ref) for ref in _page_refs(outcomes)]
    return [_content_row(stub, store_url, kind, ref) for kind, ref in refs if ref is not None and exists(ref.key)]


def parquet_row(manifest: Manifest | Stub, table: str, archive: ObjectRef, store_url: str) -> ContentRow:
    """Return the row of one table's archive; `archive.key` is relative to the model's folder."""
    return _content_row(manifest, store_url, ContentKind.PARQUET, archive, table)


def request_rows(manifest: Manifest | Stub, outcomes: Iterable[Outcome]) -> list[RequestRow]:
    """Return the rows of the requests that ended in a version."""
    model_id = uuid.UUID(manifest.goal_model_id)
    return [
        RequestRow(
            goal_model_id=model_id,
            request_id=outcome.request_id,
            seq=outcome.seq,
            function=outcome.function,
            state=RequestState(outcome.status.value),
            version=manifest.version,
            result=outcome.result,
            error=outcome.error,
            group_id=outcome.group,
            accepted_at=outcome.at,
            finished_at=manifest.at,
            sender=_named(outcome.sender),
            traceparent=outcome.traceparent,
            tables=outcome.tables or None,
        )
        for outcome in outcomes
    ]


def started_row(goal_model_id: uuid.UUID, request: Request) -> RequestRow:
    """Return the row of a request whose work has begun."""
    return RequestRow(
        goal_model_id=goal_model_id,
        request_id=request.request_id,
        seq=request.seq,
        function=request.function,
        state=RequestState.STARTED,
        group_id=request.group,
        accepted_at=request.at,
        sender=_named(request.sender),
        traceparent=request.traceparent,
    )


def _named(sender: str) -> str | None:
    return None if sender == ANONYMOUS else sender


def _content_row(
    manifest: Manifest | Stub, store_url: str, kind: ContentKind, ref: ObjectRef, table: str | None = None
) -> ContentRow:
    return ContentRow(
        goal_model_id=uuid.UUID(manifest.goal_model_id),
        version=manifest.version,
        kind=kind,
        uri=object_uri(store_url, f"models/{manifest.goal_model_id}/{ref.key}"),
        rows=ref.rows,
        bytes=ref.size_bytes,
        checksum=ref.checksum,
        at=manifest.at,
        table_name=table,
    )
