"""Direct reads run in worker processes: none can affect the writer, delay others, or outlive its manager."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import duckdb
import pytest

from processes import MODEL, Installation, rows, table, until, until_async
from teatree.contracts.environment import process_environ
from teatree.contracts.errors import Code, RetryError
from teatree.contracts.names import new_id
from teatree.contracts.read_settings import ReadSettings
from teatree.contracts.settings import LimitSettings
from teatree.functions.query import Query
from teatree_manager.read_workers.pool import Asked, ReadPool

NEVER = "SELECT levenshtein(repeat('a', 1000000), repeat('b', 1000000))"
"""DuckDB does not interrupt it: it runs for minutes."""
SLOW = "SELECT count(*) AS n FROM range(12000) a, range(10000) b WHERE (a.range * b.range) % 7 = 3"
COUNTED = 14692123
QUICKLY: dict[str, Any] = {"TEATREE_READS_KILL_MARGIN_MS": "200", "TEATREE_READS_LONG_MS": "200"}
TWO: dict[str, Any] = {"TEATREE_READS_WORKERS_MAX": "2", "TEATREE_READS_LONG_WORKERS_MAX": "1"}


def limited(query_time_ms_max: int) -> dict[str, Any]:
    """Return a `create_model` body with a limit for this model."""
    return {**table("id"), "limits": {"query_time_ms_max": query_time_ms_max}}


async def ask(installation: Installation, sql: str, **headers: str) -> dict[str, Any]:
    """Return the reply of a direct read: an object with `rows`, or with `error`."""
    subject = installation.bus.subjects.query(MODEL, "query")
    reply = await installation.bus.request(subject, json.dumps({"sql": sql}).encode(), headers, timeout_ms=60_000)
    found: dict[str, Any] = json.loads(reply.body)
    return found


async def workers(installation: Installation) -> list[int]:
    """Return the pids of the manager's read workers."""
    reply = await installation.bus.request(installation.bus.subjects.query(MODEL, "health"), b"{}")
    found: list[int] = json.loads(reply.body)["read_workers"]
    return found


async def busy_worker(installation: Installation) -> int:
    """Return the pid of a worker that had started before, once it has used the processor for a while."""
    before = {pid: _ticks(pid) for pid in await workers(installation)}

    def busy() -> list[int]:
        return [pid for pid, ticks in before.items() if _ticks(pid) > ticks + 5]

    await until(lambda: bool(busy()))
    return busy()[0]


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11])


def resources(pid: int) -> tuple[list[str], bytes]:
    """Return the open files and the environment of a process."""
    opened = [str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()]
    return opened, Path(f"/proc/{pid}/environ").read_bytes()


async def test_a_read_that_cannot_be_interrupted_is_killed(installation: Installation) -> None:
    """Its worker is killed at the model's limit; after two times the statement, and no other, is held off."""
    manager = await installation.created(limited(600), **QUICKLY, **TWO)
    await installation.send("append", rows(1, 2), "a")
    assert (await ask(installation, "SELECT count(*) AS n FROM t"))["rows"] == [{"n": 2}]
    for code in ("timed_out", "timed_out", "held_off"):
        asked = asyncio.create_task(ask(installation, NEVER))
        small = await ask(installation, "SELECT count(*) AS n FROM t")
        assert small["rows"] == [{"n": 2}]
        assert (await asked)["error"]["code"] == code
    await installation.send("append", rows(3), "b")
    assert installation.manager_pid() == manager.pid
    assert manager.code is None


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGSEGV, "internal"), (signal.SIGKILL, "over_limit")], ids=["crash", "killed"]
)
async def test_a_worker_that_dies_takes_one_read_with_it(
    installation: Installation, number: signal.Signals, code: str
) -> None:
    """Its read gets a clear error; a killed worker counts as over its memory limit."""
    await installation.created(table("id"))
    await ask(installation, "SELECT 42 AS n")
    asked = asyncio.create_task(ask(installation, NEVER))
    os.kill(await busy_worker(installation), number)
    assert (await asked)["error"]["code"] == code
    assert (await ask(installation, "SELECT 42 AS n"))["rows"] == [{"n": 42}]


async def test_a_read_beyond_the_memory_is_over_limit(installation: Installation) -> None:
    """Also when DuckDB allocates beyond its own limit; a result that is too large has another code."""
    await installation.created(table("id"), TEATREE_READS_PROCESS_MEMORY_BYTES_MAX="1500000000")
    for sql, code in (
        ("SELECT length(repeat('x', 3000000000))", "over_limit"),
        ("SELECT length(string_agg(repeat('y', 1000000))) FROM range(3000) r(i)", "over_limit"),
        ("SELECT repeat('x', 7000000) AS v FROM range(60)", "result_too_large"),
    ):
        assert (await ask(installation, sql))["error"]["code"] == code
    assert (await ask(installation, "SELECT 42 AS n"))["rows"] == [{"n": 42}]


async def test_workers_inherit_nothing_and_end_with_their_manager(installation: Installation) -> None:
    """None runs before the first read; they have no file but the version's, one socket, and no credentials."""
    manager = await installation.created(table("id"))
    await installation.send("append", rows(1), "a")
    assert await workers(installation) == []
    assert (await ask(installation, "SELECT id FROM t"))["rows"] == [{"id": 1}]
    (pid,) = await workers(installation)
    opened, environ = resources(pid)
    assert {path for path in opened if path.startswith("/") and not path.startswith("/dev/")} == {
        str(installation.local().current.resolve()),
        str(manager.log),
    }
    assert sum(path.startswith("socket:") for path in opened) == 1
    assert b"TEATREE_" not in environ
    asked = asyncio.create_task(ask(installation, NEVER))
    await busy_worker(installation)
    await manager.kill()
    await installation.until_ended(pid)
    asked.cancel()


async def test_idle_workers_exit(installation: Installation) -> None:
    """After a time without reads there is none; the next read starts one."""
    await installation.created(table("id"), TEATREE_READS_IDLE_MS="200")
    for _ in range(2):
        assert (await ask(installation, "SELECT 42 AS n"))["rows"] == [{"n": 42}]

        async def have_ended() -> bool:
            return not await workers(installation)

        await until_async(have_ended)
    assert list(installation.local().read_temp.iterdir()) == []


async def test_slow_reads_delay_no_small_one(installation: Installation) -> None:
    """More slow reads than workers all get results, and small ones get theirs before most of them."""
    await installation.created(table("id"), **QUICKLY, **TWO)
    await ask(installation, "SELECT 42 AS n")
    slow = [asyncio.create_task(ask(installation, SLOW)) for _ in range(3)]
    await busy_worker(installation)
    for _ in range(3):
        assert (await ask(installation, "SELECT 42 AS n"))["rows"] == [{"n": 42}]
    assert sum(task.done() for task in slow) < 3
    answers = await asyncio.gather(*slow)
    assert {answer["rows"][0]["n"] for answer in answers} == {COUNTED}


async def test_a_read_that_is_given_up_is_interrupted(installation: Installation) -> None:
    """Its worker runs the next read; it was not killed."""
    await installation.created(table("id"), TEATREE_READS_WORKERS_MAX="1")
    headers = {"Teatree-Request-Id": new_id(), "Teatree-Repeat-Ms": "60000"}
    for_ever = "SELECT count(*) FROM range(10000000) a(i), range(10000000) b(j) WHERE hash(i, j) = 7"
    await ask(installation, "SELECT 42 AS n")
    asked = asyncio.create_task(ask(installation, for_ever, **headers))
    pid = await busy_worker(installation)
    bus = installation.bus
    await bus.send((bus.frame(bus.subjects.query(MODEL, "cancel"), b"", headers, f"{bus._inbox.prefix}x"),))
    assert (await ask(installation, "SELECT 42 AS n"))["rows"] == [{"n": 42}]
    assert await workers(installation) == [pid]
    asked.cancel()


async def test_a_version_that_is_read_keeps_its_file(installation: Installation) -> None:
    """A worker's file is not overwritten while it reads, however many versions follow; an idle worker closes it."""
    settings: dict[str, Any] = {"TEATREE_MANAGER_LOCAL_GRACE_MS": "20", "TEATREE_MANAGER_LOCAL_COPY_BYTES_MAX": "0"}
    await installation.created(table("id"), **settings)
    await installation.send("append", rows(*range(1000)), "a")
    assert (await ask(installation, "SELECT count(*) AS n FROM t"))["rows"] == [{"n": 1000}]
    held = installation.local().current.resolve()
    asked = asyncio.create_task(ask(installation, f"SELECT sum(id) AS n, ({SLOW}) AS m FROM t"))
    await busy_worker(installation)
    for number in range(5):
        await installation.send("append", rows(number + 1000), f"b{number}")
    assert held.exists()
    assert (await asked)["rows"] == [{"n": sum(range(1000)), "m": COUNTED}]
    await until(lambda: not held.exists(), lambda: "the file to go")


async def store_no_page(number: int, rows: int, body: bytes) -> None:
    """Take a page after the first; there is none."""


async def test_a_read_of_a_manager_that_ends_is_unavailable(tmp_path: Path) -> None:
    """Its client sends it again; it is not blamed for the end of its worker."""
    path = tmp_path / "1.duckdb"
    duckdb.connect(str(path)).close()
    asked = Asked("client", Query(NEVER, (), 1_000, "json"), LimitSettings(), 60_000, 1, 1_000_000)
    pool = ReadPool(ReadSettings(), process_environ(), tmp_path / "temp", lambda: (1, path))
    reading = asyncio.create_task(pool.read(asked, store_no_page))
    await until(lambda: any(_ticks(pid) > 100 for pid in pool.pids))
    await pool.close()
    with pytest.raises(RetryError) as caught:
        await reading
    assert caught.value.code is Code.UNAVAILABLE
