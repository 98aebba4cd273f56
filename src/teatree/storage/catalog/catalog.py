"""The catalog in PostgreSQL: a projection of the version chains that other programs query.

It is written in chunks, one transaction each, and every write can be repeated: a model's row never goes back to an
older version, a request's end is never overwritten, the rest is the same each time. Rows travel as one JSON array a
statement, which PostgreSQL turns back into rows: a few statements a chunk, whatever its size.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import orjson

from teatree.contracts.codec import dump_json
from teatree.contracts.errors import Code, OperatorError, RequestError
from teatree.storage.catalog.goal_model import ensure_row
from teatree.storage.catalog.rows import ContentKind, ContentRow, ModelRow, RequestRow, RequestState, VersionRow

if TYPE_CHECKING:
    import uuid
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime
    from typing import LiteralString

    from teatree.storage.catalog.postgres import Postgres, PostgresSession
    from teatree.storage.catalog.rows import ModelColumns

T = TypeVar("T")
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


# More than ten public methods: one for each statement that other parts need.
class Catalog:
    """Writes and reads the catalog; raises what `Postgres.transaction` raises."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

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

    def models(self) -> list[ModelRow]:
        """Return all models by name."""
        with self._postgres.transaction() as session:
            return [_read(ModelRow, row) for row in session.rows("SELECT * FROM goal_model ORDER BY name")]

    def model(self, name: str) -> ModelRow | None:
        """Return one model, or None if the catalog has no row of it."""
        with self._postgres.transaction() as session:
            rows = session.rows("SELECT * FROM goal_model WHERE name = %(name)s", {"name": name})
        return _read(ModelRow, rows[0]) if rows else None

    def versions(self, name: str, *, before: int | None = None, limit: int = 100) -> list[VersionRow]:
        """Return up to `limit` versions of a model, the newest first, those below `before`; raises `unknown_model`."""
        found = self._of_model(
            name,
            """
            SELECT v.* FROM goal_model_version v WHERE goal_model_id = %(id)s
                AND version < coalesce(%(before)s::bigint, 9223372036854775807)
            ORDER BY version DESC LIMIT %(limit)s
            """,
            {"before": before, "limit": limit},
        )
        return [_read(VersionRow, {**row, "changed_tables": tuple(row["changed_tables"])}) for row in found]

    def contents(
        self, name: str, *, version: int | None = None, kind: ContentKind | None = None, limit: int = 1_000
    ) -> list[ContentRow]:
        """Return up to `limit` objects of a model, the newest first; raises `unknown_model`."""
        found = self._of_model(
            name,
            """
            SELECT c.* FROM content_index c WHERE goal_model_id = %(id)s
                AND (%(version)s::bigint IS NULL OR version = %(version)s)
                AND (%(kind)s::text IS NULL OR kind = %(kind)s)
            ORDER BY version DESC, kind, uri LIMIT %(limit)s
            """,
            {"version": version, "kind": kind and str(kind), "limit": limit},
        )
        return [_read(ContentRow, {**row, "kind": ContentKind(row["kind"])}) for row in found]

    def requests(
        self, name: str, *, state: RequestState | None = None, before_seq: int | None = None, limit: int = 100
    ) -> list[RequestRow]:
        """Return up to `limit` requests of a model, the last in the log first; raises `unknown_model`."""
        found = self._of_model(
            name,
            """
            SELECT r.* FROM request_log r WHERE goal_model_id = %(id)s
                AND seq < coalesce(%(before)s::bigint, 9223372036854775807)
                AND (%(state)s::text IS NULL OR state = %(state)s)
            ORDER BY seq DESC LIMIT %(limit)s
            """,
            {"before": before_seq, "state": state and str(state), "limit": limit},
        )
        return [_request_row(row) for row in found]

    def request(self, name: str, request_id: str) -> RequestRow | None:
        """Return one request, or None if the catalog has no row of it; raises `unknown_model`."""
        found = self._of_model(
            name,
            "SELECT r.* FROM request_log r WHERE goal_model_id = %(id)s AND request_id = %(request_id)s",
            {"request_id": request_id},
        )
        return _request_row(found[0]) if found else None

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

    def _of_model(self, name: str, statement: LiteralString, parameters: dict[str, Any]) -> list[dict[str, Any]]:
        with self._postgres.transaction() as session:
            found = session.rows("SELECT goal_model_id FROM goal_model WHERE name = %(name)s", {"name": name})
            if not found:
                raise RequestError(
                    Code.UNKNOWN_MODEL,
                    f"The catalog has no model {name!r}.",
                    where="model",
                    hint="`teatree models` lists them.",
                )
            return session.rows(statement, {**parameters, "id": found[0]["goal_model_id"]})


def _request_row(row: dict[str, Any]) -> RequestRow:
    tables = row.get("tables")
    row = {**row, "state": RequestState(row["state"])}
    return _read(RequestRow, row | {"tables": tuple(tables)} if tables is not None else row)


def _read(kind: type[T], row: dict[str, Any]) -> T:
    """Return a row as a value of `kind`; columns that a newer release added are ignored.

    Raises `wrong_configuration` if the schema of an older release lacks a column.
    """
    names = attrs.fields_dict(kind)  # type: ignore[arg-type]
    missing = [name for name in names if name not in row]
    if missing:
        raise OperatorError(
            Code.WRONG_CONFIGURATION,
            f"The catalog's schema is of an older release: it has no {missing[0]!r}.",
            where="TEATREE_POSTGRES_URL",
            hint="Run `teatree up`, which migrates it, or `teatree catalog rebuild`.",
        )
    return kind(**{name: row[name] for name in names})


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
