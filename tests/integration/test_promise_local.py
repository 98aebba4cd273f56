"""A damaged snapshot file is noticed, logged, and made again from the store; the model stays available."""

from __future__ import annotations

import asyncio
from pathlib import Path

import duckdb

from damage import flip
from processes import Installation, Running, rows, table, until

BLOCK_BYTES, HEADER_BYTES = 262_144, 12_288
DELETED = ("does not exist", "No such file")
"""Texts in the errors of an old file that was deleted just then."""


def flip_every_block(path: Path) -> None:
    """Flip a bit in each block of a file."""
    for place in range(HEADER_BYTES + 1_000, path.stat().st_size, BLOCK_BYTES):
        flip(path, place)


def content(path: Path) -> list[tuple[int]] | str:
    """Return what a plain DuckDB reads there, or its error."""
    try:
        with duckdb.connect(str(path), read_only=True) as con:
            return con.execute("SELECT id FROM t ORDER BY id").fetchall()
    except (duckdb.Error, FileNotFoundError) as e:
        return str(e)


async def begin(installation: Installation, interval_ms: int) -> Running:
    """Return a manager of two tables, `u` filled once, after the snapshot file of its newest version was damaged."""
    manager = await installation.created(table("id"), TEATREE_SCRUB_INTERVAL_MS=str(interval_ms))
    await installation.send("create_table", {**table("id")["tables"][0], "table": "u"}, "u")
    await installation.send("append", {"table": "u", "rows": [{"id": i} for i in range(5_000)]}, "u1")
    await installation.send("append", rows(1), "a1")
    current = installation.local().current
    await until(lambda: content(current) == [(1,)], lambda: str(content(current)))
    flip_every_block(current.resolve())
    return manager


async def check_recovery(installation: Installation, manager: Running) -> None:
    """Wait for the manager's exit, start another one, and check that it makes whole files and nothing is lost."""
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
    assert not [text for text in bad if not any(reason in text for reason in DELETED)]


async def test_the_scrub_finds_damage(installation: Installation) -> None:
    """Bits that flip in the newest snapshot file are found without a read, and the file is made again."""
    manager = await begin(installation, interval_ms=20)
    await installation.publish("append", rows(2), "a2")
    await check_recovery(installation, manager)


async def test_a_read_finds_damage(installation: Installation) -> None:
    """A query or an archive that reads the damaged file finds it; the query's result then comes from a whole one."""
    manager = await begin(installation, interval_ms=0)
    # The damaged file may be read from memory, the one after it may not.
    next_version = installation.chain.newest_version() + 1
    await installation.publish("append", rows(2), "a2")
    asking = asyncio.create_task(installation.ask("SELECT sum(id) AS s FROM u WHERE id > 7", min_version=next_version))
    await check_recovery(installation, manager)
    assert await asking == [{"s": sum(range(8, 5_000))}]
