"""The next version's manifest, made from the one before it and a batch's result. Nothing here writes."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime

import attrs
from attrs import frozen

from teatree.contracts.errors import Code, OperatorError
from teatree.contracts.formats.manifest import (
    Incarnation,
    LedgerRef,
    Manifest,
    ManifestKind,
    ModelOptions,
    ModelState,
    StreamStamp,
    TableEntry,
)
from teatree.contracts.formats.provenance import AppCode
from teatree.contracts.formats.steps import Steps
from teatree.contracts.formats.traceparent import is_sampled
from teatree.contracts.names import ANONYMOUS
from teatree.engine.apply.batch import Applied
from teatree.engine.base import Captured, EngineHandle
from teatree.storage.ledger.segments import Entry, segment_ref
from teatree.storage.versions.chain import Chain

SENDERS_MAX = 16
TRACEPARENTS_MAX = 16
"""Senders and traces that a manifest names: it must not grow with the batch, whose outcome segment has them all."""


@frozen
class CapturedData:
    """What a version's manifest records about the model's data."""

    captured: Captured
    tables: tuple[TableEntry, ...]
    steps: Steps
    """Those up to its capture."""


@frozen
class PreparedVersion:
    """A captured version, ready to be shipped."""

    manifest: Manifest
    entries: tuple[Entry, ...]
    segment: bytes
    steps: Steps
    """Those up to its capture; `ship` adds those of the upload to its manifest."""
    captured: Captured | None
    """None where the model has no data."""
    archive: tuple[str, ...] | None = None
    """Tables for whose archive its `archive` request waits; () means all."""


@frozen
class Author:
    """The writer of manifests, and the log to which their offsets refer."""

    stream: StreamStamp
    details: dict[str, object]
    """For people: host and process."""


def new_write_id() -> str:
    """Return a random write id: 16 hex digits."""
    return secrets.token_hex(8)


def fence_after(newest: Manifest | None, chain: Chain, author: Author, now: datetime) -> Manifest:
    """Return the fence of a new writer: the content of the newest manifest, under a new epoch."""
    if newest is None:
        return Manifest(
            model=chain.model,
            goal_model_id=chain.goal_model_id,
            version=1,
            write_id=new_write_id(),
            parent_write_id="",
            kind=ManifestKind.FENCE,
            epoch=1,
            state=ModelState.ABSENT,
            at=now,
            log_at=datetime.fromtimestamp(0, UTC),
            offset=0,
            stream=author.stream,
            content_version=0,
            content_write_id="",
            user_version=0,
            last_effect_seq=0,
            announced_version=0,
            writer=dict(author.details),
        )
    return attrs.evolve(
        newest,
        version=newest.version + 1,
        write_id=new_write_id(),
        parent_write_id=newest.write_id,
        kind=ManifestKind.FENCE,
        epoch=newest.version + 1,
        at=max(now, newest.at),
        stream=newest.stream if newest.offset else author.stream,
        pack=None,
        outcomes=None,
        changed_tables=(),
        senders=(),
        traceparents=(),
        step_us={},
        writer=dict(author.details),
    )


def batch_after(
    parent: Manifest,
    applied: Applied,
    data: CapturedData | None,
    ledger: LedgerRef,
    announced_version: int,
    author: Author,
    now: datetime,
) -> Manifest:
    """Return a batch's manifest; `data` is what was captured of the model's data, None if it has none."""
    if applied.version != parent.version + 1:
        raise OperatorError(Code.INTERNAL, f"Version {applied.version} does not follow {parent.version}.")
    creation = applied.creation
    captured = data.captured if data is not None else None
    changed = creation is not None or applied.dropped or bool(applied.changed_tables)
    return attrs.evolve(
        parent,
        version=applied.version,
        write_id=applied.write_id,
        parent_write_id=parent.write_id,
        kind=ManifestKind.BATCH,
        state=ModelState.DROPPED if applied.dropped else ModelState.ACTIVE if data else parent.state,
        at=max(now, parent.at),
        log_at=applied.log_at,
        offset=applied.offset,
        stream=author.stream,
        content_version=applied.version,
        content_write_id=applied.write_id,
        user_version=applied.version if changed else parent.user_version,
        last_effect_seq=applied.last_effect_seq,
        announced_version=announced_version,
        incarnation=_incarnation(applied, parent.incarnation),
        fork_of=creation.fork_of if creation else None if applied.dropped else parent.fork_of,
        options=options_after(applied, parent),
        app=app_after(applied, parent),
        content=captured.content if captured else None,
        tables=data.tables if data else (),
        pack=captured.pack if captured else None,
        outcomes=segment_ref(applied.version, applied.write_id, applied.segment, len(applied.entries)),
        ledger=ledger,
        changed_tables=tuple(sorted(applied.changed_tables)),
        senders=_senders(applied.entries),
        traceparents=_traceparents(applied.entries),
        step_us={},
        writer=dict(author.details),
    )


def options_after(applied: Applied, parent: Manifest) -> ModelOptions:
    """Return the model's options after a batch."""
    if applied.creation is not None:
        return applied.creation.options
    change = applied.app_change
    return parent.options if change is None else attrs.evolve(parent.options, app=change.name)


def app_after(applied: Applied, parent: Manifest) -> AppCode | None:
    """Return the code of the model's app that was used last; none while none of that app was used."""
    if applied.creation is not None or applied.dropped:
        return None
    code = applied.app or parent.app
    is_other = applied.app_change is not None and code is not None and code.name != applied.app_change.name
    return None if is_other else code


def _senders(entries: Sequence[Entry]) -> tuple[str, ...]:
    found = {entry.outcome.sender for entry in entries}
    found.discard(ANONYMOUS)
    return tuple(sorted(found)[:SENDERS_MAX])


def _traceparents(entries: Sequence[Entry]) -> tuple[str, ...]:
    found = dict.fromkeys([entry.outcome.traceparent for entry in entries])
    return tuple(sorted((trace for trace in found if trace), key=is_sampled, reverse=True)[:TRACEPARENTS_MAX])


def _incarnation(applied: Applied, before: Incarnation) -> Incarnation:
    if applied.dropped:
        return Incarnation(created_seq=0, dropped_seq=applied.offset)
    if applied.creation is not None:
        return attrs.evolve(before, created_seq=applied.offset)
    return before


def table_entries(handle: EngineHandle, before: Manifest, applied: Applied) -> tuple[TableEntry, ...]:
    """Return the tables' entries for the manifest after `before`; rows are counted only of tables that changed."""
    known = {entry.name: entry for entry in before.tables}
    entries: list[TableEntry] = []
    for info in handle.infos():
        entry = known.get(info.name)
        if entry is None or info.name in applied.changed_tables:
            rows = handle.count(info.name)
            entry = TableEntry(info.name, info.schema, rows, info.primary_key, applied.version, info.fault)
        entries.append(entry)
    return tuple(entries)
