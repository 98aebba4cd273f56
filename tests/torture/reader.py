"""A reader process: opens `current.duckdb` in a loop with plain duckdb, and prints all that it must not see.

`python reader.py CURRENT`, until its standard input ends. Lines: `{"at_s", "error"}`, then `{"reads", "versions"}`.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path

import duckdb

PAUSE_S = 0.05


def main() -> None:
    """Read until told to stop."""
    current = Path(sys.argv[1])
    stop = threading.Event()
    threading.Thread(target=_wait, args=(stop,), daemon=True).start()
    reads, seen, newest = 0, set(), 0
    exists = False
    while not stop.wait(PAUSE_S):
        try:
            target = Path(current.readlink()).stem
            exists = True
            with duckdb.connect(str(current), read_only=True, config={"threads": 1}) as con:
                row = con.execute("SELECT count(*), coalesce(sum(v), 0), count(*) % 2 FROM pairs").fetchone()
                con.execute("SELECT count(*), max(name), sum(qty), sum(price) FROM items").fetchone()
            reads += 1
            seen.add(target)
            if row is None or row[1] != 0 or row[2] != 0:
                _say(error=f"version {target}: half a request is visible: {row}")
            if int(target) < newest:
                _say(error=f"current.duckdb went back from {newest} to {target}")
            newest = max(newest, int(target))
        except FileNotFoundError as e:
            if exists:
                _say(error=f"current.duckdb is gone: {e}")
                exists = False
        except duckdb.Error as e:
            _say(error=f"{type(e).__name__}: {e}")
    _say(reads=reads, versions=len(seen))


def _wait(stop: threading.Event) -> None:
    sys.stdin.read()
    stop.set()


def _say(**facts: object) -> None:
    print(json.dumps({"at_s": time.time(), **facts}), flush=True)


if __name__ == "__main__":
    main()
