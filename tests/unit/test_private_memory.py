"""A statement that allocates beyond its limit fails at once, without harm to other threads of the process."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from teatree.contracts.process import ALLOCATOR_ENVIRON

RUN = """
import json, resource, sys, threading, time
import duckdb
from teatree.engine.duckdb.errors import translate
from teatree.engine.duckdb.private_memory import PRIVATE_MEMORY
from teatree_manager.memory import limit_memory

limit_memory(3_000_000_000)
before = resource.getrlimit(resource.RLIMIT_DATA)
con = duckdb.connect(":memory:", config={"memory_limit": "1GB", "threads": 2})
con.execute("CREATE TABLE t AS SELECT range AS id, 'x' AS word FROM range(4000)")
ended, failed = threading.Event(), []

def neighbour():
    while not ended.is_set():
        try:
            bytearray(1_000_000)
            thread = threading.Thread(target=lambda: None)
            thread.start()
            thread.join()
        except (MemoryError, RuntimeError) as e:
            failed.append(str(e))
        time.sleep(0.002)

beside = threading.Thread(target=neighbour)
beside.start()
codes = []
for statement in json.loads(sys.argv[1]):
    con.execute("BEGIN")
    try:
        with PRIVATE_MEMORY.within(150_000_000):
            con.execute(statement).fetchall()
        codes.append("done")
    except (duckdb.Error, MemoryError) as e:
        codes.append(str(translate(e).code))
    con.execute("ROLLBACK")
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
ended.set()
beside.join()
print()  # ends a line of DuckDB's progress
print(json.dumps([codes, failed, con.execute("SELECT count(*), max(word) FROM t").fetchone()]))
"""
TOO_BIG = [
    "INSERT INTO t SELECT 1, repeat('x', 3000000000)",
    "SELECT length(repeat('x', 500000000))",
    "SELECT list_aggregate(range(500000000), 'sum')",
    "SELECT length(string_agg(repeat('y', 1000000))) FROM range(2000)",
    "SELECT repeat('x', 500000000)::VARIANT::VARCHAR",
    "SELECT sum(length(v)) FROM (SELECT repeat('x', 1000000) || i AS v FROM range(2048) r(i))",
    "UPDATE t SET word = repeat('y', 200000)",
    "SELECT mode(i::VARCHAR || 'abcdefghijklmnopqrstuvwxyz') FROM range(5000000) r(i)",
    "SELECT len(list_transform(range(10000000), lambda x: x::VARCHAR || 'abcdefghijklmnop'))",
    "SELECT len(list(i)) FROM range(50000000) r(i)",
    "SELECT to_json(range(50000000))",
    "SELECT printf('%2000000000s', 'x')",
]


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_what_is_too_big_fails_at_once_and_alone() -> None:
    """A statement that fills the memory in any way is `over_limit`; other threads allocate and start."""
    statements = [*TOO_BIG, "INSERT INTO t VALUES (1, 'y')"]
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(statements)],
        env={**os.environ, **ALLOCATOR_ENVIRON},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    codes, failed, rows = json.loads(done.stdout.splitlines()[-1])
    assert dict(zip(statements, codes, strict=True)) == {**dict.fromkeys(TOO_BIG, "over_limit"), statements[-1]: "done"}
    assert failed == []
    assert rows == [4000, "x"]


BESIDE = """
import resource
from teatree.engine.duckdb.private_memory import PRIVATE_MEMORY
from teatree_manager.memory import limit_memory

def limit():
    return resource.getrlimit(resource.RLIMIT_DATA)[0]

limit_memory(3_000_000_000)
with PRIVATE_MEMORY.within(500_000_000):
    own = limit()
    with PRIVATE_MEMORY.beside(1_000_000_000):
        assert limit() == own + 1_000_000_000
        with PRIVATE_MEMORY.beside(5_000_000_000):
            assert limit() == 3_000_000_000
    assert limit() == own
assert limit() == 3_000_000_000
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_what_works_beside_a_statement_takes_nothing_from_it() -> None:
    """An archive has a separate share while it runs, and the process's limit is never exceeded."""
    done = subprocess.run([sys.executable, "-c", BESIDE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
