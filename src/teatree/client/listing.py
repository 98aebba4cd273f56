"""Which models there are: asked of the catalogue, or of the object store where there is none."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

from attrs import frozen

from teatree.storage.folders import model_chains

if TYPE_CHECKING:
    from teatree.contracts.manifest import Manifest
    from teatree.contracts.settings import Settings
    from teatree.storage.objects import ObjectStore


@frozen
class ModelInfo:
    """One model at its newest version."""

    name: str
    state: str
    """`active`, `dropped`, or `absent` while it is being created."""
    version: int
    at: datetime
    """When the version was published."""
    file_bytes: int
    tables: dict[str, int]
    """Rows by table."""


def list_models(settings: Settings, store: Callable[[], ObjectStore]) -> list[ModelInfo]:
    """Return all models of the installation, by name."""
    chains = model_chains(store(), settings.nats.prefix)
    newest = (chain.newest() for chain in chains)
    return sorted((_from_manifest(m) for m in newest if m is not None), key=lambda info: info.name)


def _from_manifest(manifest: Manifest) -> ModelInfo:
    return ModelInfo(
        name=manifest.model,
        state=manifest.state.value,
        version=manifest.version,
        at=manifest.at,
        file_bytes=manifest.file.size_bytes if manifest.file else 0,
        tables={table.name: table.rows for table in manifest.tables},
    )
