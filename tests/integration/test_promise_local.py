"""A damaged local version never stays: it is noticed, told, and made again out of the store; the model goes on."""

from __future__ import annotations

import asyncio
from pathlib import Path

import duckdb

from damage import flip
from processes import Installation, Running, rows, table, until

BLOCK_BYTES, HEADER_BYTES = 262_144, 12_288
GONE = ("does not exist", "No such file")
"""What is said of an old file that went by itself just then."""


def flip_every_block(path: Path) -> None:
    """Turn a bit over in each block of a file."""
    for place in range(HEADER_BYTES + 1_000, path.stat().st_size, BLOCK_BYTES):
        flip(path, place)


def content(path: Path) -> list[tuple[int]] | str:
    """Return what a plain DuckDB reads there, or the error that it meets."""
    try:
        with duckdb.connect(str(path), read_only=True) as con:
            return con.execute("SELECT id FROM t ORDER BY id").fetchall()
    except (duckdb.Error, FileNotFoundError) as e:
        return str(e)


async def begin(installation: Installation, interval_ms: int) -> Running:
    """Return a manager of two tables, `u` filled once, after the local file of its newest version was damaged."""
    manager = await installation.created(table("id"), TEATREE_SCRUB_INTERVAL_MS=str(interval_ms))
    await installation.send("create_table", {**table("id")["tables"][0], "table": "u"}, "u")
    await installation.send("append", {"table": "u", "rows": [{"id": i} for i in range(5_000)]}, "u1")
    await installation.send("append", rows(1), "a1")
    current = installation.local().current
    await until(lambda: content(current) == [(1,)], lambda: str(content(current)))
    flip_every_block(current.resolve())
    return manager


async def goes_on(installation: Installation, manager: Running) -> None:
    """Wait until the manager has left; another one makes whole files, and nothing is lost."""
    assert await manager.exit_code() == 1
    assert "The local versions are not used any more." in manager.output()
    installation.manager()
    current = installation.local().current
    assert (await installation.outcome("a2"))["kind"] == "done"
    await until(lambda: content(current) == [(1,), (2,)], lambda: str(content(current)))
    assert (await installation.send("append", rows(3), "a3"))["kind"] == "done"
    await until(lambda: content(current) == [(1,), (2,), (3,)], lambda: str(content(current)))
    assert not installation.local().distrusted.exists()
    found = [content(path) for path in installation.local().versions.glob("*.duckdb")]
    bad = [text for text in found if isinstance(text, str)]
    assert not [text for text in bad if not any(gone in text for gone in GONE)]


async def test_the_scrubber_notices(installation: Installation) -> None:
    """Bits that flip in the newest local file are found before anybody reads them, and the file is made again."""
    manager = await begin(installation, interval_ms=20)
    await installation.publish("append", rows(2), "a2")
    await goes_on(installation, manager)


async def test_a_reader_notices(installation: Installation) -> None:
    """Who reads the damaged file, for a query or an archive, notices; the query is then answered out of a whole one."""
    manager = await begin(installation, interval_ms=0)
    # The damaged file may answer out of memory, the one after it not.
    next_version = installation.chain.newest_version() + 1
    await installation.publish("append", rows(2), "a2")
    asking = asyncio.create_task(installation.ask("SELECT sum(id) AS s FROM u WHERE id > 7", min_version=next_version))
    await goes_on(installation, manager)
    assert await asking == [{"s": sum(range(8, 5_000))}]
