"""Outcome segments: the outcomes of one version, beside its pack, as an Arrow IPC file (docs/decisions/0004).

The same bytes wait in the model's own file until the version is shipped, so a crash between the two changes nothing.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from enum import StrEnum
from operator import attrgetter
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from attrs import frozen
from blake3 import blake3

from teatree.contracts.errors import CorruptError
from teatree.contracts.formats.codec import dump_json, structure
from teatree.contracts.formats.manifest import Manifest, ObjectRef, Stub
from teatree.contracts.formats.notices import Outcome, Status
from teatree.contracts.formats.provenance import AppCode, VersionRead
from teatree.contracts.names import ANONYMOUS
from teatree.storage.objects.base import ObjectStore
from teatree.storage.reread import reread


class Role(StrEnum):
    """How a row of a segment relates to its request id."""

    FIRST = "first"
    """The request's own outcome; the ledger remembers it."""
    AGAIN = "again"
    """A resend: answered with the outcome that `answer_version` holds."""
    OUTSIDE = "outside"
    """A request before the model's incarnation, which the dispatcher has rejected: its id is remembered with that."""
    REUSED = "reused"
    """Another body under a used id: refused; the id still stands for its first request."""


@frozen
class Entry:
    """One row of a segment."""

    outcome: Outcome
    role: Role = Role.FIRST
    answer_version: int | None = None
    """For a resend: the version whose segment holds the first outcome."""

    @property
    def is_first(self) -> bool:
        """Whether its outcome is what a resend of its id is answered with."""
        return self.role in (Role.FIRST, Role.OUTSIDE)


SCHEMA = pa.schema(
    [
        ("seq", pa.uint64()),
        ("request_id", pa.string()),
        ("function", pa.string()),
        ("body_hash", pa.binary(16)),
        ("status", pa.string()),
        ("at", pa.timestamp("us", tz="UTC")),
        ("result", pa.string()),
        ("error", pa.string()),
        ("group", pa.string()),
        ("pages", pa.string()),
        ("effect", pa.bool_()),
        ("role", pa.string()),
        ("answer_version", pa.uint64()),
        ("tables", pa.string()),
        ("sender", pa.string()),
        ("traceparent", pa.string()),
        ("index", pa.uint32()),
        ("app", pa.string()),
        ("reads", pa.string()),
    ]
)
"""All columns; a segment lacks those in which no row has a value.

`result`, `error`, `pages`, `tables`, `app` and `reads` are JSON texts; `at` is JetStream's time of the request. Without
a value a row has the role `first`, the sender `_` and the index 0.
"""


COMPRESSED_ROWS_MIN = 32
"""Rows from which a segment is compressed: below, zstd saves no byte and costs 1.5 ms, ten times the rest."""

SHARED_ROWS_MIN = 256
"""Rows from which a text that all rows have is stored once, as a dictionary of one value: a third fewer bytes at 1,000
rows; below, the dictionaries take more than they save."""


def segment_key(version: int, write_id: str) -> str:
    """Return a segment's key below the model's folder: no two writers ever share one."""
    return f"outcomes/{version:020d}-{write_id}"


_PLAIN = tuple(map(attrgetter, ("seq", "request_id", "function", "body_hash", "status", "at")))
_GROUP, _TRACEPARENT, _INDEX, _APP, _READS = map(attrgetter, ("group", "traceparent", "index", "app", "reads"))


def encode_segment(entries: Sequence[Entry]) -> bytes:
    """Return the bytes of a segment."""
    outcomes = [e.outcome for e in entries]
    columns: list[Any] = [
        *(list(map(member, outcomes)) for member in _PLAIN),
        [None if o.result is None else dump_json(o.result).decode() for o in outcomes],
        [None if o.error is None else dump_json(o.error).decode() for o in outcomes],
        list(map(_GROUP, outcomes)),
        [dump_json(o.pages).decode() if o.pages else None for o in outcomes],
        [o.effect for o in outcomes],
        [None if e.role is Role.FIRST else e.role for e in entries],
        [e.answer_version for e in entries],
        _table_texts([o.tables for o in outcomes]),
        [None if o.sender == ANONYMOUS else o.sender for o in outcomes],
        list(map(_TRACEPARENT, outcomes)),
        _given(list(map(_INDEX, outcomes)), int),
        _given(list(map(_APP, outcomes)), _text),
        _given(list(map(_READS, outcomes)), _text),
    ]
    pairs = zip(SCHEMA, columns, strict=True)
    arrays = {field.name: _array(values, field.type) for field, values in pairs if _has_value(values)}
    schema = pa.schema([(name, array.type) for name, array in arrays.items()])
    sink = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression="zstd" if len(entries) >= COMPRESSED_ROWS_MIN else None)
    with pa.ipc.new_file(sink, schema, options=options) as writer:
        writer.write_batch(pa.record_batch(list(arrays.values()), schema=schema))
    return sink.getvalue()


def _given(values: list[Any], convert: Callable[[Any], Any]) -> list[Any]:
    """Return the values that are given, converted, and None for the others."""
    return [convert(value) if value else None for value in values] if any(values) else [None] * len(values)


def _text(value: Any) -> str:
    return dump_json(value).decode()


def _table_texts(values: Sequence[tuple[str, ...]]) -> list[str | None]:
    """Return names of tables as JSON texts; most requests of a version write the same."""
    texts = {names: dump_json(names).decode() if names else None for names in set(values)}
    return [texts[names] for names in values]


def _array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Return a column; a text that all rows of a long one have is stored once."""
    if kind != pa.string() or len(values) < SHARED_ROWS_MIN or values.count(values[0]) < len(values):
        return pa.array(values, kind)
    return pa.DictionaryArray.from_arrays(np.zeros(len(values), np.int8), pa.array(values[:1], kind))


def _has_value(values: Sequence[Any]) -> bool:
    return bool(values) and (values[0] is not None or values.count(None) < len(values))


def decode_segment(body: bytes, where: str) -> list[Entry]:
    """Return the rows of a segment; raises `corrupt`."""
    try:
        table = pa.ipc.open_file(body).read_all()
        table.validate(full=True)
        rows = pa.table([_plain(column) for column in table.columns], table.schema.names).to_pylist()
    except (pa.ArrowInvalid, OSError) as e:
        raise CorruptError(f"The outcome segment is damaged: {e}", where=where) from e
    return [_entry(row, where) for row in rows]


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column without a dictionary: its values are read several times faster."""
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _entry(row: dict[str, Any], where: str) -> Entry:
    app = _json(row.get("app"))
    return Entry(
        outcome=Outcome(
            seq=row["seq"],
            request_id=row["request_id"],
            function=row["function"],
            body_hash=row["body_hash"],
            status=Status(row["status"]),
            at=row["at"],
            result=_json(row.get("result")),
            error=_json(row.get("error")),
            group=row.get("group"),
            pages=tuple(_json(row.get("pages")) or ()),
            effect=row["effect"],
            tables=tuple(_json(row.get("tables")) or ()),
            sender=row.get("sender") or ANONYMOUS,
            traceparent=row.get("traceparent"),
            index=row.get("index") or 0,
            app=None if app is None else structure(app, AppCode, where),
            reads=tuple(structure(read, VersionRead, where) for read in _json(row.get("reads")) or ()),
        ),
        role=Role(row.get("role") or Role.FIRST),
        answer_version=row.get("answer_version"),
    )


def _json(text: str | None) -> Any:
    return None if text is None else orjson.loads(text)


def segment_ref(version: int, write_id: str, body: bytes, rows: int) -> ObjectRef:
    """Return the reference under which a manifest names a segment."""
    return ObjectRef(
        key=segment_key(version, write_id), size_bytes=len(body), checksum=blake3(body).hexdigest(), rows=rows
    )


def read_segment(store: ObjectStore, folder: str, manifest: Manifest | Stub) -> list[Entry]:
    """Return the outcomes of a version, verified; a fence has none.

    Those of a cleaned-up version are kept for a time; raises `NotFoundError` after that.
    """
    if manifest.outcomes is None:
        return []
    key, checksum = f"{folder}/{manifest.outcomes.key}", manifest.outcomes.checksum
    return decode_segment(reread(lambda: _matching(store.get(key), checksum, key)), key)


def _matching(body: bytes, checksum: str, key: str) -> bytes:
    if blake3(body).hexdigest() != checksum:
        raise CorruptError("The outcome segment does not match its hash.", where=key)
    return body
