"""A reader process: `python version_reader.py FOLDER HOLD_S` queries the newest local version until its input ends.

With HOLD_S = 0 it opens `current.duckdb` anew for every query, else it keeps a version open for so many seconds. Every
result is checked; the first wrong one, or any error, ends the reader with a message. When its standard input is
closed it exits with 0 and prints the numbers of its queries and versions.
"""

from __future__ import annotations

import select
import sys
import time
from pathlib import Path

import duckdb

QUERY = "SELECT count(*) % 100, sum(amount), max(batch), count(DISTINCT batch) * 100 - count(*) FROM sales"
"""Every batch has a hundred rows whose amounts cancel out."""


def main() -> None:
    """Query until standard input is closed."""
    path = Path(sys.argv[1]) / "current.duckdb"
    hold_s = float(sys.argv[2])
    queries, newest, versions = 0, -1, set()
    while not stopped():
        with duckdb.connect(str(path), read_only=True, config={"threads": 1}) as con:
            until = time.monotonic() + hold_s
            seen = set()
            while True:
                odd, total, batch, missing = con.execute(QUERY).fetchall()[0]
                queries += 1
                seen.add(batch)
                if (odd, total, missing) != (0, 0, 0) or batch < newest or len(seen) != 1:
                    sys.exit(f"wrong answer: {odd} {total} {batch} {missing} after {newest}, seen {seen}")
                if time.monotonic() >= until or stopped():
                    break
            newest = batch
            versions.add(batch)
    print(queries, len(versions))


def stopped() -> bool:
    """Return whether standard input was closed."""
    return bool(select.select([sys.stdin], [], [], 0)[0])


if __name__ == "__main__":
    main()
