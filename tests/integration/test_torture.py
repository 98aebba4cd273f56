"""A short torture run: whatever crashes or is damaged, readers see what replaying the log on a second model gives."""

from __future__ import annotations

from torture.run import Options, torture

SEED = 9
RUN_S = 5
KINDS = ("kill_manager", "kill_nats", "nats_cut", "postgres_cut", "wal_cut", "wal_flipped", "data_lost")
"""The short ones: each takes effect within seconds."""


def test_torture() -> None:
    """All promises hold through some seconds of faults; `make torture` does the same for longer."""
    report, summary = torture(Options(SEED, RUN_S, gap_s=0.5, kinds=KINDS, quiet=True))
    print(summary)
    assert not report.violations, "\n\n".join([summary, *report.violations])
    assert report.counts["first done"] > 0
    assert report.counts["versions compared"] > 0
