"""Shipping a captured version: pack and outcomes into the store, then the manifest, which is the commit point."""

from __future__ import annotations

from teatree.contracts.failpoints import Failpoint
from teatree.engine.drafts import Draft
from teatree.storage.chain import Chain


def ship(draft: Draft, chain: Chain, failpoint: Failpoint) -> None:
    """Upload a version and create its manifest. May be called again after a `RetryError`."""
    store, manifest = chain.store, draft.manifest
    failpoint("manager.ship.before_pack")
    if draft.capture is not None and manifest.pack is not None:
        store.put(chain.key(manifest.pack.key), draft.capture.path)
    failpoint("manager.ship.before_outcomes")
    if manifest.outcomes is not None:
        store.put(chain.key(manifest.outcomes.key), draft.segment)
    failpoint("manager.ship.before_manifest")
    chain.create(manifest)
    failpoint("manager.ship.after_manifest")
