"""A reader process: opens `current.duckdb` in a loop with plain duckdb, and prints every violation.

`python -m torture.reader CURRENT`, until its standard input ends. Lines: `{"at_s", "error"}`, then `{"reads"}`.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from pathlib import Path

import duckdb

PAUSE_S = 0.05
SLOW_SHARE, SLOW_S = 0.02, 3.0
"""How many of the reads hold their connection, and for how long."""
PAIRS = "SELECT count(*), coalesce(sum(v), 0), count(*) % 2 FROM pairs"


def main() -> None:
    """Read until standard input ends."""
    current = Path(sys.argv[1])
    stop = threading.Event()
    threading.Thread(target=wait, args=(stop,), daemon=True).start()
    reads, seen, newest = 0, set(), 0
    exists, rng = False, random.Random(str(current))
    while not stop.wait(PAUSE_S):
        try:
            target = Path(current.readlink()).stem
            exists = True
            with duckdb.connect(str(current), read_only=True, config={"threads": 1}) as con:
                row = con.execute(PAIRS).fetchone()
                con.execute("SELECT count(*), max(name), sum(qty), sum(price) FROM items").fetchone()
                if rng.random() < SLOW_SHARE:
                    stop.wait(SLOW_S)
                    again = con.execute(PAIRS).fetchone()
                    if again != row:
                        report(error=f"version {target} was {row} and is {again} under an open connection")
            reads += 1
            seen.add(target)
            if row is None or row[1] != 0 or row[2] != 0:
                report(error=f"version {target}: half a request is visible: {row}")
            if int(target) < newest:
                report(error=f"current.duckdb went back from {newest} to {target}")
            newest = max(newest, int(target))
        except FileNotFoundError as e:
            if exists:
                report(error=f"current.duckdb has vanished: {e}")
                exists = False
        except duckdb.Error as e:
            report(error=f"{type(e).__name__}: {e}")
    report(reads=reads, versions=len(seen))


def wait(stop: threading.Event) -> None:
    """Set `stop` when standard input ends."""
    sys.stdin.read()
    stop.set()


def report(**facts: object) -> None:
    """Print a line of facts."""
    print(json.dumps({"at_s": time.time(), **facts}), flush=True)


if __name__ == "__main__":
    main()
