"""What the catalog in PostgreSQL holds, as rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from teatree.contracts.errors import Code, OperatorError, RequestError
from teatree.storage.catalog.rows import ContentKind, ContentRow, ModelRow, RequestRow, RequestState, VersionRow

if TYPE_CHECKING:
    from typing import LiteralString

    from teatree.storage.catalog.postgres import Postgres

T = TypeVar("T")


class CatalogReader:
    """Reads the catalog; raises what `Postgres.transaction` raises."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

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
