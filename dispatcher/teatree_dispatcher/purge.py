"""Purging the log: requests that are both older than the retention time and done with, model by model.

Done with are requests at or below the offset of a version in the chain (the catalog is never used), and rejected ones
outside an incarnation. The log's server clock measures age. The log's last request always stays, as the anchor that
shows that the log was not truncated since, also to a model whose own last request is purged (docs/decisions/0016).
While a model may not continue in the log nothing is purged: that would hide the fault for which the model has stopped.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta

from teatree.contracts.formats.codec import parse_utc, utc_text
from teatree.messaging.bus import Bus
from teatree.messaging.last_requests import last_sequences
from teatree.messaging.log import first_request_since, position_at
from teatree.messaging.streams import log_state, purge_log
from teatree_dispatcher.model_registry import ModelRegistry

DoneBefore = Callable[[str], Awaitable[int | None]]
"""Returns the sequence up to which a model's requests are done with, None if no model's may be purged now."""


async def purge(bus: Bus, registry: ModelRegistry, retention_days: float, done_with: DoneBefore) -> int:
    """Purge requests that are old and done with; return their number."""
    state = await log_state(bus)
    cutoff = parse_utc(state.now) - timedelta(days=retention_days)
    if state.messages == 0 or parse_utc(state.first_at) >= cutoff:
        return 0
    before: dict[str, int] = {}
    registry.purged(state.first_seq)
    last = await last_sequences(bus, registry.last_requests()[0])
    anchor = await position_at(bus, max(last.values())) if last else None
    if anchor is None:
        return 0  # the log is empty, or another dispatcher purges: the next purge finds more
    for model in last:
        recent_seq = await first_request_since(bus, model, utc_text(cutoff))
        done_seq = await done_with(model)
        if done_seq is None:
            return 0
        boundary = min(done_seq + 1, recent_seq or anchor.seq, anchor.seq)  # a recent one may have come after it
        if boundary > state.first_seq:
            before[model] = boundary
    if not before:
        return 0
    with bus.probe.step("dispatcher.purge", models=len(before)):
        return await purge_log(bus, before, anchor)
