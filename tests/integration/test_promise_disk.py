"""A disk that is nearly full: spares are deleted first, then requests wait with the reason, and none is lost."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pytest

from processes import MODEL, Installation, Running, rows, table, until, until_async
from teatree.client.listing import ModelInfo
from teatree.client.session import connect
from teatree.storage.archives import archived_versions

DISK_BYTES = 160_000_000
FLOOR_BYTES = 30_000_000
MB = 1_000_000
KEEP_OPEN = """
import duckdb, sys
with duckdb.connect(sys.argv[1], read_only=True) as con:
    print("open", flush=True)
    sys.stdin.read()
    print(con.execute("SELECT count(*), sum(v) FROM t").fetchone(), flush=True)
"""
ROWS = 1_000_000
"""A file of some 9 MB."""
MANY = f"INSERT INTO t SELECT range, (hash(range) >> 1)::BIGINT FROM range(1000, {1000 + ROWS})"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Return a folder on a separate small disk."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root may mount a disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


class Ballast:
    """A file that takes up a disk's space."""

    def __init__(self, disk: Path) -> None:
        self._disk = disk
        self._path = disk / "ballast"

    def leave(self, free_bytes: int) -> None:
        """Grow until only some bytes are free."""
        more = shutil.disk_usage(self._disk).free - free_bytes
        with self._path.open("ab") as file:
            os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, more)

    def remove(self) -> None:
        """Free all of its space."""
        self._path.unlink()


@contextmanager
def not_written(folder: Path) -> Iterator[None]:
    """Prevent that files are created or deleted below a folder, as on a read-only disk."""
    folders = [str(path) for path in (folder, *folder.rglob("*")) if path.is_dir()]
    if subprocess.run(["chattr", "+i", *folders], capture_output=True, check=False).returncode != 0:
        pytest.skip("this file system knows no immutable folders")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", *folders], check=True)


def spares(folder: Path) -> list[Path]:
    """Return the spares."""
    return list(folder.glob("*.spare"))


async def begin(
    installation: Installation, disk: Path, floor_bytes: int, plan: dict[str, Any] | None = None
) -> tuple[Running, int]:
    """Return a manager with its folder on a disk, and the version that holds a large table; no archive follows."""
    manager = await installation.created(
        table("id", "v"),
        plan,
        data=disk,
        TEATREE_LIMITS_DISK_FREE_BYTES_MIN=str(floor_bytes),
        TEATREE_MANAGER_LOCAL_COPY_BYTES_MAX="0",
        TEATREE_MANAGER_LOCAL_GRACE_MS="50",
        TEATREE_MANAGER_ARCHIVE_INTERVAL_MS="3600000",
    )
    await until(lambda: bool(archived_versions(installation.chain)), lambda: "the first archive")
    version = (await installation.send("sql", {"statement": MANY}, "many"))["version"]
    await installation.ask("SELECT 1", min_version=version)
    return manager, version


def keep_open(path: Path) -> subprocess.Popen[str]:
    """Return a process that has a version open and reads it when its input ends."""
    reader = subprocess.Popen(
        [sys.executable, "-c", KEEP_OPEN, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert reader.stdout is not None
    assert reader.stdout.readline() == "open\n"
    return reader


async def seen(installation: Installation) -> ModelInfo:
    """Return what `models` shows of the model."""
    return next(info for info in await connect(settings=installation.settings).models() if info.name == MODEL)


async def test_a_nearly_full_disk(installation: Installation, disk: Path) -> None:
    """Spares are deleted before a request waits; then one waits visibly, and is done when there is space."""
    manager, newest = await begin(installation, disk, FLOOR_BYTES)
    local, ballast = installation.local(disk), Ballast(disk)
    sent = 0

    async def append() -> None:
        nonlocal newest, sent
        sent += 1
        newest = (await installation.send("append", rows(sent, v=1), f"a{sent}"))["version"]
        await installation.ask("SELECT 1", min_version=newest)

    held = local.current.resolve()
    reader = keep_open(held)
    while sum(path.stat().st_size for path in spares(local.versions)) < 6 * MB:
        await append()

    ballast.leave(FLOOR_BYTES - 5 * MB)  # a spare is more than that
    await append()
    assert "deleted old local files" in manager.output()

    ballast.leave(MB)
    await installation.publish("append", rows(sent + 1, v=1), "last")

    async def waits() -> bool:
        info = await seen(installation)
        return info.state == "waits" and "less than 30 MB is free" in (info.why or "")

    await until_async(waits)
    await until(lambda: not spares(local.versions), lambda: f"spares to go: {spares(local.versions)}")
    await until(lambda: set(local.versions.iterdir()) == {held, local.current.resolve()})
    assert not await installation.has_outcome("last")
    assert await installation.ask("SELECT count(*) AS n FROM t") == [{"n": ROWS + sent}]

    ballast.remove()
    assert (await installation.outcome("last"))["kind"] == "done"

    async def is_active() -> bool:
        return (await seen(installation)).state == "active"

    await until_async(is_active)
    assert reader.communicate(timeout=60)[0].startswith(f"({ROWS}, ")
    assert all(outcome["kind"] == "done" for outcome in (await installation.outcomes()).values())
    installation.check_chain()
    assert installation.read("SELECT count(*) FROM t") == [(ROWS + sent + 1,)]
    await installation.ask("SELECT 1", min_version=installation.chain.newest_version())
    await manager.kill()
    with duckdb.connect(str(local.current), read_only=True) as con:
        assert con.execute("SELECT count(*) FROM t").fetchall() == [(ROWS + sent + 1,)]


async def test_no_room_to_restore(installation: Installation, disk: Path) -> None:
    """When the model's file was lost and there is no space for it, its manager waits, and resumes when there is."""
    manager, _ = await begin(installation, disk, 100_000)
    local, ballast = installation.local(disk), Ballast(disk)
    await manager.kill()
    shutil.rmtree(local.read_write)
    local.versions.joinpath("7.spare").write_bytes(bytes(2 * MB))
    ballast.leave(MB)
    versions = installation.chain.newest_version()
    await installation.publish("append", rows(1, v=1), "a1")
    manager = installation.manager(data=disk)
    await manager.until_printed("taking over waits")
    assert not spares(local.versions)
    ballast.remove()
    assert (await installation.outcome("a1"))["kind"] == "done"
    assert installation.chain.newest_version() == versions + 2  # its fence and the request, however often it was tried
    assert manager.code is None


async def test_no_room_for_the_local_file(installation: Installation, disk: Path) -> None:
    """When a version's snapshot file does not fit on the disk, requests are applied, and it is made when it fits."""
    manager, version = await begin(installation, disk, 100_000)
    local, ballast = installation.local(disk), Ballast(disk)
    ballast.leave(3 * MB)
    assert (await installation.send("append", rows(1, v=1), "a1"))["kind"] == "done"
    await manager.until_printed("disk_full: The local file of version")
    assert (await installation.send("append", rows(2, v=1), "a2"))["kind"] == "done"
    assert local.current.resolve() == local.version(version)
    ballast.remove()
    version = installation.chain.newest_version()
    assert await installation.ask("SELECT count(*) AS n FROM t", min_version=version) == [{"n": ROWS + 2}]
    assert manager.code is None


async def test_a_disk_that_is_full_for_a_while(installation: Installation, disk: Path) -> None:
    """After a checkpoint on a full disk the same manager publishes its version when there is space."""
    place = "manager.capture.begin"
    manager, _ = await begin(installation, disk, 0, {place: {"action": "delay", "delay_ms": 1_000, "hit": 3}})
    ballast, more = Ballast(disk), MANY.replace("range(1000, ", f"range({2 * ROWS}, {2 * ROWS} + ")
    await installation.publish("sql", {"statement": more}, "more")
    await until(lambda: any(installation.folder.glob(f"*.{place}.0")), lambda: "the checkpoint to come")
    ballast.leave(100_000)
    await manager.until_printed("has been invalidated")
    ballast.remove()
    assert (await installation.outcome("more"))["kind"] == "done"
    assert (await installation.send("append", rows(1, v=1), "a1"))["kind"] == "done"
    assert installation.read("SELECT count(*) > 1000000 FROM t") == [(True,)]
    assert manager.code is None


async def test_a_disk_that_is_read_only_for_a_while(installation: Installation, disk: Path) -> None:
    """No request fails because the disk cannot be written for a while: all wait, and are done afterwards."""
    manager, _ = await begin(installation, disk, 0)
    with not_written(installation.local(disk).root):
        await installation.publish("append", rows(1, v=1), "a1")
        await manager.until_printed("Operation not permitted")
    assert (await installation.outcome("a1"))["kind"] == "done"
    with not_written(installation.local(disk).read_write):
        await installation.publish("append", rows(2, v=1), "a2")
        await manager.until_printed("Cannot open file")
    assert (await installation.outcome("a2"))["kind"] == "done"
    assert manager.code is None
    await manager.kill()
    with not_written(installation.local(disk).root):
        await installation.publish("append", rows(3, v=1), "a3")
        manager = installation.manager(data=disk)
        await manager.until_printed("cannot be acquired")
    assert (await installation.outcome("a3"))["kind"] == "done"
    assert manager.code is None
