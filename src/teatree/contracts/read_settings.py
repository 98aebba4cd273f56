"""The limits of direct reads, each a setting `TEATREE_READS_<NAME>`."""

from __future__ import annotations

from typing import Final

from attrs import field, frozen

ZERO_ALLOWED: Final = {"zero": True}
"""Metadata of a number for which 0 has a meaning: with 0 for another nothing would work, or ids would be forgotten."""


@frozen
class ReadSettings:
    """How one manager answers direct reads: worker processes, fairness between reads, and limits."""

    workers_max: int = 4
    """Worker processes of one model: each answers one read at a time. More bring nothing on two cores."""
    wait_ms_max: int = field(default=50, metadata=ZERO_ALLOWED)
    """Milliseconds that a read waits for a worker that runs before another is started: a start costs half a second of
    processor time, and many short reads need one worker only."""
    long_workers_max: int = 2
    """Workers that reads longer than `long_ms` may hold while others wait: the rest begin new reads."""
    long_ms: int = 1_000
    """Milliseconds after which a running read counts as long."""
    kill_margin_ms: int = field(default=1_000, metadata=ZERO_ALLOWED)
    """Milliseconds that a read may still run after it was interrupted; then its process is killed."""
    idle_ms: int = 30_000
    """Milliseconds after which a worker without a read ends: a model that is not read has none."""
    start_ms_max: int = 30_000
    """Milliseconds that a worker's start may take on a busy host; then it is killed."""
    nice: int = field(default=0, metadata=ZERO_ALLOWED)
    """By how much workers give way to other processes: 19 is the most."""
    process_memory_bytes_max: int = field(default=2_500_000_000, metadata=ZERO_ALLOWED)
    """Bytes of private memory that the kernel gives a worker, 0 for no limit: DuckDB's `memory_bytes_max`, a result of
    `rows_bytes_max`, and a page of it in JSON."""
    page_bytes_max: int = 128_000_000
    """Bytes of one further page of an answer: the manager holds one in memory for each worker."""
    waiting_max: int = 256
    """Reads of one model that run or wait; beyond it those of the client that has most are answered `busy`."""
    waiting_bytes_max: int = 64_000_000
    """Bytes of the bodies of these reads."""
    silent_repeats_max: int = field(default=2, metadata=ZERO_ALLOWED)
    """Repeats that a client may miss before its read counts as given up: one can be lost with a connection."""
    silent_ms_min: int = 15_000
    """Milliseconds without a repeat before which no read counts as given up, however often its client repeats it: a
    busy host or a new connection takes seconds, and must not cost a read."""
    statement_kills_max: int = 2
    """Kills within `kills_window_ms` after which a statement is held off."""
    client_kills_max: int = 4
    """Kills within `kills_window_ms` after which a client is held off: more than one of its statements causes them."""
    kills_window_ms: int = 600_000
    """Milliseconds for which a kill is remembered."""
    hold_ms_min: int = 30_000
    """Milliseconds for which a statement or a client is held off first; doubles with each further kill."""
    hold_ms_max: int = 600_000
    """The longest such time."""
