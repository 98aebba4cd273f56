"""`python -m fuzz --seed 7 --minutes 10` (from `tests/`): every converter against DuckDB's text of the value."""

from __future__ import annotations

import argparse
import secrets
import sys
import time

from fuzz.run import Fuzzer


def main() -> int:
    """Run rounds until the time is over; 1 if a value differed, or a converter refused what it must accept."""
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="a number; drawn and printed if left out")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--round", type=int, default=None, help="only this round of the seed")
    args = parser.parse_args()
    seed = secrets.randbelow(10**9) if args.seed is None else args.seed
    print(f"seed {seed}", flush=True)
    began_s = time.monotonic()
    with Fuzzer(seed) as fuzzer:
        if args.round is not None:
            fuzzer.round(args.round)
        rounds = 1 if args.round is not None else fuzzer.run(args.minutes * 60)
    for difference in fuzzer.report.differences:
        print(difference)
    print(fuzzer.report.summary())
    print(
        f"seed {seed}, {rounds:,} rounds, {fuzzer.report.values.total():,} values,"
        f" {len(fuzzer.report.differences)} differences, {time.monotonic() - began_s:.0f} s"
    )
    return int(bool(fuzzer.report.differences))


if __name__ == "__main__":
    sys.exit(main())
