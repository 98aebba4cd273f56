"""The catalog in PostgreSQL: a projection of the version chains that other programs query.

It is written in chunks, one transaction each, and every write can be repeated: a model's row never goes back to an
older version, a request's end is never overwritten, the rest is the same each time. Rows travel as one JSON array a
statement, which PostgreSQL turns back into rows: a few statements a chunk, whatever its size.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import attrs
import orjson

from teatree.contracts.formats.codec import dump_json
from teatree.storage.catalog.goal_model import ensure_row
from teatree.storage.catalog.reader import CatalogReader

if TYPE_CHECKING:
    import uuid
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime
    from typing import LiteralString

    from teatree.storage.catalog.postgres import PostgresSession
    from teatree.storage.catalog.rows import ContentRow, ModelColumns, RequestRow, VersionRow

RESULT_BYTES_MAX = 100_000
"""Bytes of a result or an error as JSON in a row; a larger one is left out: its notice and its version have it."""
STATEMENT_ROWS_MAX = 5_000
"""Rows of one statement: bounds the memory of its parameter on both sides."""
_NUL = re.compile(rb"(?<!\\)((?:\\\\)*)\\u0000")
"""The one character that JSON can hold and PostgreSQL cannot."""

_MODEL = """
    INSERT INTO goal_model (goal_model_id, name, engine, lifecycle, version, applied_offset, epoch, options, tables,
        size_bytes, store_url)
    SELECT * FROM json_to_recordset(%(rows)s::json) AS r(goal_model_id uuid, name text, engine text, lifecycle text,
        version bigint, applied_offset bigint, epoch bigint, options jsonb, tables jsonb, size_bytes bigint,
        store_url text)
    ON CONFLICT (goal_model_id) DO UPDATE SET engine = excluded.engine, lifecycle = excluded.lifecycle,
        version = excluded.version, applied_offset = excluded.applied_offset, epoch = excluded.epoch,
        options = excluded.options, tables = excluded.tables, size_bytes = excluded.size_bytes,
        store_url = excluded.store_url, updated_at = now()
    WHERE goal_model.version <= excluded.version
    """
_VERSIONS = """
    INSERT INTO goal_model_version (goal_model_id, version, write_id, kind, epoch, applied_offset, user_version, at,
        log_at, size_bytes, pack_bytes, requests, changed_tables)
    SELECT * FROM json_to_recordset(%(rows)s::json) AS r(goal_model_id uuid, version bigint, write_id text, kind text,
        epoch bigint, applied_offset bigint, user_version bigint, at timestamptz, log_at timestamptz,
        size_bytes bigint, pack_bytes bigint, requests integer, changed_tables text[])
    ORDER BY goal_model_id, version
    ON CONFLICT (goal_model_id, version) DO NOTHING
    """
_CONTENTS = """
    INSERT INTO content_index (goal_model_id, version, kind, uri, rows, bytes, checksum, at, table_name)
    SELECT DISTINCT ON (goal_model_id, uri) *
    FROM json_to_recordset(%(rows)s::json) AS r(goal_model_id uuid, version bigint, kind text, uri text,
        rows bigint, bytes bigint, checksum text, at timestamptz, table_name text)
    ORDER BY goal_model_id, uri, version DESC
    ON CONFLICT (goal_model_id, uri) DO UPDATE SET version = excluded.version, rows = excluded.rows,
        bytes = excluded.bytes, checksum = excluded.checksum, at = excluded.at
    WHERE content_index.version <= excluded.version AND content_index.checksum IS DISTINCT FROM excluded.checksum
    """
# A second body under a used id is refused under that same id: the first in the log is the one that the row is for.
_REQUESTS = """
    INSERT INTO request_log AS log (goal_model_id, request_id, seq, function, state, accepted_at, version, result,
        error, group_id, finished_at, sender, traceparent, tables)
    SELECT DISTINCT ON (goal_model_id, request_id) *
    FROM json_to_recordset(%(rows)s::json) AS r(goal_model_id uuid, request_id text, seq bigint, function text,
        state text, accepted_at timestamptz, version bigint, result jsonb, error jsonb, group_id text,
        finished_at timestamptz, sender text, traceparent text, tables text[])
    ORDER BY goal_model_id, request_id, state = 'started', seq
    ON CONFLICT (goal_model_id, request_id) DO UPDATE SET seq = excluded.seq, function = excluded.function,
        state = excluded.state, accepted_at = excluded.accepted_at, version = excluded.version,
        result = excluded.result, error = excluded.error, group_id = excluded.group_id,
        finished_at = excluded.finished_at, sender = excluded.sender, traceparent = excluded.traceparent,
        tables = excluded.tables
    WHERE log.state = 'started' AND excluded.state <> 'started'
    """


class Catalog(CatalogReader):
    """Writes and reads the catalog; raises what `Postgres.transaction` raises."""

    def record_versions(
        self,
        model: ModelColumns,
        versions: Sequence[VersionRow],
        contents: Sequence[ContentRow] = (),
        requests: Sequence[RequestRow] = (),
    ) -> None:
        """Write a chunk of versions, their objects and outcomes, all or nothing; may be repeated."""
        with self._postgres.transaction() as session:
            _insert(session, _VERSIONS, versions)
            _insert(session, _CONTENTS, contents)
            _insert(session, _REQUESTS, requests)
            # Last: the lease is in this row, and its renewal must not wait for the chunk.
            ensure_row(session, model.goal_model_id, model.name)
            _insert(session, _MODEL, [model])

    def record_requests(self, requests: Sequence[RequestRow]) -> None:
        """Write requests that begin or end outside a version; the row of an ended request stays as it is."""
        with self._postgres.transaction() as session:
            _insert(session, _REQUESTS, requests)

    def record_contents(self, contents: Sequence[ContentRow]) -> None:
        """Write the rows of objects that were stored after their version, as archives are."""
        with self._postgres.transaction() as session:
            _insert(session, _CONTENTS, contents)

    def forget_contents(self, goal_model_id: uuid.UUID, uris: Sequence[str]) -> None:
        """Delete the rows of objects that were removed from the store."""
        with self._postgres.transaction() as session:
            session.execute(
                "DELETE FROM content_index WHERE goal_model_id = %(id)s AND uri = ANY(%(uris)s)",
                {"id": goal_model_id, "uris": list(uris)},
            )

    def forget_versions(self, goal_model_id: uuid.UUID, versions: Sequence[int]) -> None:
        """Delete the rows of cleaned-up versions; those of their remaining objects and outcomes stay."""
        with self._postgres.transaction() as session:
            session.execute(
                "DELETE FROM goal_model_version WHERE goal_model_id = %(id)s AND version = ANY(%(versions)s)",
                {"id": goal_model_id, "versions": list(versions)},
            )
            session.execute(
                """
                DELETE FROM content_index WHERE goal_model_id = %(id)s AND version = ANY(%(versions)s)
                    AND kind = 'snapshot'
                """,
                {"id": goal_model_id, "versions": list(versions)},
            )

    def record_error(self, goal_model_id: uuid.UUID, name: str, error: dict[str, Any] | None) -> None:
        """Write why a model is stopped for an operator (`code`, `message`, `where`), or that it no longer is."""
        with self._postgres.transaction() as session:
            ensure_row(session, goal_model_id, name)
            session.execute(
                """
                UPDATE goal_model SET error = %(error)s::jsonb, updated_at = now()
                WHERE goal_model_id = %(id)s AND error IS DISTINCT FROM %(error)s::jsonb
                """,
                {"id": goal_model_id, "error": None if error is None else _json(error).decode()},
            )

    def record_waits(self, goal_model_id: uuid.UUID, name: str, why: str | None) -> None:
        """Write why a model's requests wait, or that they no longer do."""
        with self._postgres.transaction() as session:
            ensure_row(session, goal_model_id, name)
            session.execute(
                "UPDATE goal_model SET waits = %(why)s WHERE goal_model_id = %(id)s",
                {"id": goal_model_id, "why": None if why is None else why.replace("\0", " ")},
            )

    def record_damage(self, goal_model_id: uuid.UUID, name: str, damage: Mapping[int, str]) -> None:
        """Write what is damaged in the store, by version; empty: no damage is known."""
        with self._postgres.transaction() as session:
            ensure_row(session, goal_model_id, name)
            found = {str(version): what for version, what in damage.items()}
            session.execute(
                "UPDATE goal_model SET damage = %(damage)s::jsonb WHERE goal_model_id = %(id)s",
                {"id": goal_model_id, "damage": _without_nul(dump_json(found)).decode() if found else None},
            )

    def trim_requests(self, finished_before: datetime, *, rows_max: int = 50_000) -> int:
        """Delete up to `rows_max` requests that ended before a time; return how many were deleted."""
        with self._postgres.transaction() as session:
            return session.execute(
                """
                DELETE FROM request_log WHERE ctid IN (SELECT ctid FROM request_log
                    WHERE finished_at < %(before)s LIMIT %(rows)s)
                """,
                {"before": finished_before, "rows": rows_max},
            )

    def clear(self) -> None:
        """Delete all that can be rebuilt from the object store; leases, errors and damage stay."""
        with self._postgres.transaction() as session:
            session.execute("TRUNCATE goal_model_version, content_index, request_log")
            session.execute(
                """
                DELETE FROM goal_model WHERE error IS NULL AND damage IS NULL
                    AND (writer IS NULL OR lease_until < now())
                """
            )
            session.execute(
                """
                UPDATE goal_model SET lifecycle = 'absent', version = 0, applied_offset = 0, epoch = 0, options = '{}',
                    tables = '[]', size_bytes = 0, updated_at = now()
                """
            )


def _insert(session: PostgresSession, statement: LiteralString, rows: Sequence[Any]) -> None:
    for part in _parts(rows):
        session.execute(statement, {"rows": part})


def _parts(rows: Sequence[Any]) -> Iterator[str]:
    """Yield rows as JSON arrays of a bounded number of objects."""
    for start in range(0, len(rows), STATEMENT_ROWS_MAX):
        part = [attrs.asdict(row, recurse=False) for row in rows[start : start + STATEMENT_ROWS_MAX]]
        for row in part:
            for column in ("result", "error"):
                if row.get(column) is not None:
                    row[column] = orjson.Fragment(_bounded(row[column]))
        yield _without_nul(dump_json(part)).decode()


def _bounded(value: Any) -> bytes:
    body = dump_json(value)
    return body if len(body) <= RESULT_BYTES_MAX else dump_json({"left_out_bytes": len(body)})


def _json(value: Any) -> bytes:
    return _without_nul(_bounded(value))


def _without_nul(body: bytes) -> bytes:
    return _NUL.sub(rb"\1\\ufffd", body) if rb"\u0000" in body else body
