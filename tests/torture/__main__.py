"""`python -m torture --seed 7 --minutes 10` (from `tests/`): one run, or with `--runs` one after the other."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from torture.faults import FAULTS
from torture.run import Options, torture


def main() -> int:
    """Run; print violations and the summary; return 1 if there was a violation."""
    parser = argparse.ArgumentParser(prog="torture", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--runs", type=int, default=1, help="further runs take the seeds that follow")
    parser.add_argument("--clients", type=int, default=5)
    parser.add_argument("--pause-ms", type=float, default=50, help="mean pause of a client between two requests")
    parser.add_argument("--gap-ms", type=float, default=1_500, help="mean time between two faults")
    parser.add_argument("--s3", action="store_true", help="a real S3 server in place of a folder")
    parser.add_argument("--faults", default="", help=f"only these, separated by commas, of: {', '.join(FAULTS)}")
    parser.add_argument("--keep", type=Path, help="where a failed run leaves its history")
    parser.add_argument("--quiet", action="store_true")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(2))  # ends what the run started
    failed = False
    for seed in range(args.seed, args.seed + args.runs):
        options = Options(
            seed, args.minutes * 60, args.clients, args.pause_ms / 1000, args.s3,
            tuple(filter(None, args.faults.split(","))), args.gap_ms / 1000, args.keep, args.quiet,
        )  # fmt: skip
        report, summary = torture(options)
        for violation in report.violations:
            print(f"VIOLATION (seed {seed}): {violation}\n")
        print(summary, flush=True)
        failed |= bool(report.violations)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
