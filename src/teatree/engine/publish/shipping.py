"""Shipping a captured version: pack and outcomes into the store, then the manifest, which is the commit point."""

from __future__ import annotations

from teatree.engine.model_context import ModelContext
from teatree.engine.publish.prepared import PreparedVersion


def ship(prepared: PreparedVersion, context: ModelContext) -> None:
    """Upload a version and create its manifest. May be called again after a `RetryError`."""
    chain, failpoint, manifest = context.chain, context.failpoint, prepared.manifest
    store = chain.store
    failpoint("manager.ship.before_pack")
    if prepared.capture is not None and manifest.pack is not None:
        store.put(chain.key(manifest.pack.key), prepared.capture.path)
    failpoint("manager.ship.before_outcomes")
    if manifest.outcomes is not None:
        store.put(chain.key(manifest.outcomes.key), prepared.segment)
    failpoint("manager.ship.before_manifest")
    chain.create(manifest)
    failpoint("manager.ship.after_manifest")
