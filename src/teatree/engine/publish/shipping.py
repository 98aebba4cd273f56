"""Shipping a captured version: pack and outcomes into the store, then the manifest, which is the commit point."""

from __future__ import annotations

import attrs

from teatree.engine.model_context import ModelContext
from teatree.engine.publish.prepared import PreparedVersion


def ship(prepared: PreparedVersion, context: ModelContext) -> PreparedVersion:
    """Upload a version and create its manifest, which names how long that took; return the version with that manifest.

    May be called again after a `RetryError`: then it can be the manifest of the earlier call.
    """
    chain, manifest, steps = context.chain, prepared.manifest, prepared.steps
    probe, store = context.probe.bind(version=manifest.version), chain.store
    for upload in prepared.captured.uploads if prepared.captured else ():
        with probe.step("manager.ship.pack", object=upload.object):
            store.put(chain.key(upload.object.key), upload.source)
        steps = steps.then("ship.pack")
    if manifest.outcomes is not None:
        with probe.step("manager.ship.segment", object=manifest.outcomes):
            store.put(chain.key(manifest.outcomes.key), prepared.segment)
        steps = steps.then("ship.segment")
    with probe.step("manager.ship.manifest"):
        created = chain.create(attrs.evolve(manifest, step_us=steps.us))
    return attrs.evolve(prepared, manifest=created)
