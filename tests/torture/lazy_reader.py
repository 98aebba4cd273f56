"""A reader process on "another laptop": attaches versions out of the store, holds each for a while, and reads it twice.

`python -m torture.lazy_reader MODEL`, until its standard input ends; settings from the environment. It prints
violations, as `torture.reader` does. An unavailable store and a version that was cleaned up are none.
"""

from __future__ import annotations

import random
import sys
import threading
import time

import duckdb

import teatree
from teatree.contracts.errors import Code, TeatreeError
from torture.reader import report, wait

PAUSE_S = 0.5
HOLD_S_MAX = 4.0
ALLOWED = {Code.UNAVAILABLE, Code.UNKNOWN_VERSION, Code.UNKNOWN_MODEL}
QUERY = "SELECT count(*), coalesce(sum(v), 0), coalesce(sum(a), 0) FROM m.pairs"


def main() -> None:
    """Read until standard input ends."""
    model = sys.argv[1]
    stop = threading.Event()
    threading.Thread(target=wait, args=(stop,), daemon=True).start()
    rng, reads, seen, newest = random.Random(model), 0, set(), 0
    while not stop.wait(PAUSE_S):
        con = duckdb.connect(config={"threads": 2})
        fault: TeatreeError | None = None
        try:
            with teatree.attach(con, model, alias="m") as attached:
                try:
                    first = con.execute(QUERY).fetchone()
                    stop.wait(rng.random() * HOLD_S_MAX)
                    second = con.execute(QUERY).fetchone()
                except duckdb.Error as e:
                    fault = attached.take_fault()
                    if fault is None:
                        report(error=f"version {attached.version}, read lazily: {type(e).__name__}: {e}")
                    continue
                version = attached.version
            reads += 1
            seen.add(version)
            if first != second or first is None or first[1] != 0 or first[0] % 2:
                report(error=f"version {version}, read lazily: {first}, then {second}")
            if version < newest:
                report(error=f"the newest version went back from {newest} to {version}")
            newest = max(newest, version)
        except TeatreeError as e:
            fault = e
        finally:
            con.close()
            if fault is not None and fault.code not in ALLOWED:
                report(error=f"read lazily: {fault}", code=str(fault.code))
    report(reads=reads, versions=len(seen), at_s=time.time())


if __name__ == "__main__":
    main()
