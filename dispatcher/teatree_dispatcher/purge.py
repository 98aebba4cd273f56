"""Purging the log: what is both older than the retention time and done with, model by model.

Done with is what lies at or below the offset of a version that is in the chain (the catalog is never asked), and what
was answered because it lay outside a life. The log's server clock measures age. The log's last request always stays, as
the witness that its end was not lost since: so a model whose own last request went can tell (docs/decisions/0016).
While a model may not go on in the log nothing of it is purged: that would excuse what the model has stopped for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta

from teatree.contracts.codec import parse_utc, utc_text
from teatree.contracts.failpoints import Failpoint
from teatree.messaging.bus import Bus
from teatree.messaging.log import first_request_since, last_sequences, position_at
from teatree.messaging.streams import log_state, purge_log

DoneBefore = Callable[[str], Awaitable[int | None]]
"""Returns the sequence up to which a model's requests are done with, None if nothing of anyone may be purged now."""


async def purge(bus: Bus, retention_days: float, done_with: DoneBefore, failpoint: Failpoint) -> int:
    """Purge what is old and done with; return how many requests that were."""
    state = await log_state(bus)
    cutoff = parse_utc(state.now) - timedelta(days=retention_days)
    if state.messages == 0 or parse_utc(state.first_at) >= cutoff:
        return 0
    before: dict[str, int] = {}
    last = await last_sequences(bus)
    anchor = await position_at(bus, max(last.values())) if last else None
    if anchor is None:
        return 0  # nothing is there, or another dispatcher purges: the next purge finds more
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
    failpoint("dispatcher.purge.before")
    purged = await purge_log(bus, before, anchor)
    failpoint("dispatcher.purge.after")
    return purged
