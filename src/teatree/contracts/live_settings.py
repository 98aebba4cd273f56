"""The limits of live queries, each a setting `TEATREE_LIVE_<NAME>`."""

from __future__ import annotations

from attrs import field, frozen

from teatree.contracts.read_settings import ZERO_ALLOWED


@frozen
class LiveSettings:
    """How one manager runs the queries that are watched, and what it keeps for them."""

    core_share: float = 0.1
    """Part of one core that all live queries of a model take together on average: those of a busy model have changes
    less often."""
    saved_ms: int = 1_000
    """Milliseconds of processor time that can be saved while nothing changes: so much is used at once afterwards."""
    queries_max: int = field(default=200, metadata=ZERO_ALLOWED)
    """Distinct queries of a model that are watched at once; a further one is refused."""
    rows_max: int = 10_000
    """Rows of the answer of a watched query: the last one is kept on the disk, to be compared with the next."""
    bytes_max: int = 4_000_000
    """Bytes of such an answer; with `queries_max` it bounds what is kept."""
    change_bytes_max: int = 250_000
    """Bytes of one change as it is published to all that watch; they read anew after a larger one."""
    time_ms_max: int = 10_000
    """Milliseconds that one run may take: a query that takes longer cannot be watched."""
    lease_ms: int = 300_000
    """Milliseconds after which a query is forgotten that no watcher has renewed; they renew three times as often. One
    whose changes no client receives is forgotten with the first of these."""
