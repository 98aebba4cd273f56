"""The list of models, from the catalog, or from the object store where there is none."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

from attrs import frozen

from teatree.contracts.errors import RetryError
from teatree.contracts.names import goal_model_id
from teatree.storage.folders import model_chains

if TYPE_CHECKING:
    from teatree.contracts.formats.manifest import Manifest
    from teatree.contracts.settings import Settings
    from teatree.storage.catalog.rows import ModelRow
    from teatree.storage.objects.base import ObjectStore


@frozen
class ModelInfo:
    """One model at its newest version."""

    name: str
    state: str
    """`active`, `dropped`, `absent` while it is being created; `waits` while its requests wait for something, `stopped`
    until an operator acts, `damaged` if versions in the store are damaged or its manager stopped because of damage."""
    version: int
    at: datetime
    """When the version was published."""
    file_bytes: int
    tables: dict[str, int]
    """Rows by table."""
    offset: int
    """How far in the log this version is."""
    why: str | None = None
    """What it waits for, what is damaged, or why it stopped; or why none of that is known."""


def list_models(settings: Settings, store: Callable[[], ObjectStore]) -> list[ModelInfo]:
    """Return all models of the installation, by name; from the store also while PostgreSQL is unavailable."""
    why = None
    if settings.postgres.url is not None:
        try:
            return _from_catalog(settings)
        except RetryError as e:  # manifests hold all but what a model waits for, but take longer to read
            why = f"the catalog is unavailable: {e}"
    newest = (chain.newest() for chain in model_chains(store(), settings.nats.prefix))
    return sorted((_from_manifest(m, why) for m in newest if m is not None), key=lambda info: info.name)


def _from_catalog(settings: Settings) -> list[ModelInfo]:
    from teatree.storage.catalog.postgres import Postgres  # noqa: PLC0415 - psycopg, only where there is a catalog
    from teatree.storage.catalog.reader import CatalogReader  # noqa: PLC0415

    postgres = Postgres(settings.postgres, application="teatree-client")
    try:
        rows = CatalogReader(postgres).models()
    finally:
        postgres.close()
    prefix = settings.nats.prefix
    return [
        _from_row(row)
        for row in rows
        if (row.version or row.error or row.waits) and row.goal_model_id == goal_model_id(prefix, row.name)
    ]


def _from_row(row: ModelRow) -> ModelInfo:
    return ModelInfo(
        name=row.name,
        state=row.state,
        version=row.version,
        at=row.updated_at,
        file_bytes=row.size_bytes,
        tables={table["name"]: table["rows"] for table in row.tables},
        offset=row.applied_offset,
        why=_why(row),
    )


def _why(row: ModelRow) -> str | None:
    if row.error is not None:
        return f"{row.error.get('code')}: {row.error.get('message')}"
    if row.damage:
        newest = max(row.damage, key=int)
        others = f", and {len(row.damage) - 1} more" if len(row.damage) > 1 else ""
        return f"version {newest}{others}: {row.damage[newest]}"
    return row.waits


def _from_manifest(manifest: Manifest, why: str | None) -> ModelInfo:
    return ModelInfo(
        name=manifest.model,
        state=manifest.state.value,
        version=manifest.version,
        at=manifest.at,
        file_bytes=manifest.size_bytes,
        tables={table.name: table.rows for table in manifest.tables},
        offset=manifest.offset,
        why=why,
    )
