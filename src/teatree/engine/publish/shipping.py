"""Shipping a captured version: pack and outcomes into the store, then the manifest, which is the commit point."""

from __future__ import annotations

from teatree.engine.model_context import ModelContext
from teatree.engine.publish.prepared import PreparedVersion


def ship(prepared: PreparedVersion, context: ModelContext) -> None:
    """Upload a version and create its manifest. May be called again after a `RetryError`."""
    chain, manifest = context.chain, prepared.manifest
    probe, store = context.probe.bind(version=manifest.version), chain.store
    if prepared.capture is not None and manifest.pack is not None:
        with probe.step("manager.ship.pack", object=manifest.pack):
            store.put(chain.key(manifest.pack.key), prepared.capture.path)
    if manifest.outcomes is not None:
        with probe.step("manager.ship.segment", object=manifest.outcomes):
            store.put(chain.key(manifest.outcomes.key), prepared.segment)
    with probe.step("manager.ship.manifest"):
        chain.create(manifest)
