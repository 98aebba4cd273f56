"""One writer: a manager that was paused, cut off or taken for dead changes nothing that readers see."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from processes import MODEL, Installation, Running, rows, table, until
from teatree.contracts.read_settings import ReadSettings
from teatree.storage.objects.small_objects import read_members
from teatree.storage.versions.head import read_head

LAPSES_SOON: dict[str, Any] = {"TEATREE_MANAGER_LEASE_MS": "1500"}
OPEN = "import duckdb, sys; duckdb.connect(sys.argv[1]).execute('SELECT 1')"


def open_elsewhere(path: Path) -> subprocess.CompletedProcess[str]:
    """Open a file for writing in another process."""
    return subprocess.run([sys.executable, "-c", OPEN, str(path)], capture_output=True, text=True, check=False)


def catalog(installation: Installation) -> dict[str, list[Any]]:
    """Return the catalog's rows of the model, without the lease."""
    with installation.postgres() as connection:
        return {
            name: connection.execute(query.encode()).fetchall()
            for name, query in {
                "model": "SELECT name, lifecycle, version, applied_offset, epoch FROM goal_model",
                "versions": "SELECT * FROM goal_model_version ORDER BY version",
                "contents": "SELECT version, kind, uri, rows, bytes, checksum FROM content_index ORDER BY uri",
                "requests": "SELECT request_id, seq, state, version, result, error FROM request_log ORDER BY seq",
            }.items()
        }


async def test_lock_on_the_file(installation: Installation) -> None:
    """After versions, archives, local versions and reads, no other process can open the read-write file to write."""
    manager = await installation.created(table("id"))
    for i in range(3):
        assert (await installation.send("append", rows(i), f"a{i}"))["kind"] == "done"
    archived = await installation.send("archive", {}, "archive")
    assert archived["kind"] == "done"
    assert await installation.ask("SELECT count(*) AS n FROM t", min_version=archived["version"]) == [{"n": 3}]
    (path,) = installation.local().read_write.glob("*/model.duckdb")
    tried = open_elsewhere(path)
    assert "Could not set lock" in tried.stderr
    await manager.kill()
    restored = installation.manager()
    assert (await installation.send("append", rows(9), "a9"))["kind"] == "done"
    (path,) = installation.local().read_write.glob("*/model.duckdb")
    assert "Could not set lock" in open_elsewhere(path).stderr
    assert await restored.leave() == 0
    assert open_elsewhere(path).returncode == 0


async def test_second_in_the_same_folder(installation: Installation) -> None:
    """A second manager on the same data folder waits, then exits with the process that has the model."""
    first = await installation.created(table("id"))
    second = installation.manager(TEATREE_MANAGER_TAKE_OVER_WAIT_MS="500")
    assert await second.exit_code() == 75
    assert f"process {first.pid} on" in second.output()
    assert "Traceback" not in second.output()
    assert (await installation.send("append", rows(1), "a"))["kind"] == "done"
    assert len({m.epoch for m in installation.check_chain()}) == 1


async def test_second_on_another_host(installation: Installation, tmp_path: Path) -> None:
    """A second manager on another host waits for the lease; it takes over as soon as the first one exits."""
    first = await installation.created(table("id"), TEATREE_HOST="one")
    other: dict[str, Any] = {"data": tmp_path / "other", "TEATREE_HOST": "two"}
    late = installation.manager(**other, TEATREE_MANAGER_TAKE_OVER_WAIT_MS="500")
    assert await late.exit_code() == 75
    assert f"process {first.pid} on one" in late.output()
    second = installation.manager(**other)
    assert await first.leave() == 0
    await second.until_printed("took the model over")
    assert (await installation.send("append", rows(1), "a"))["kind"] == "done"
    assert second.code is None


async def test_two_without_leases(installation: Installation, tmp_path: Path) -> None:
    """With no PostgreSQL two hosts compete: the chain fences one, which exits; nothing is lost."""
    nowhere: dict[str, Any] = {"TEATREE_POSTGRES_URL": ""}
    first = await installation.created(table("id"), TEATREE_HOST="one", **nowhere)
    second = installation.manager(data=tmp_path / "other", TEATREE_HOST="two", **nowhere)
    await second.until_printed("took the model over")
    for i in range(3):
        assert (await installation.send("append", rows(i), f"a{i}"))["kind"] == "done"
    assert await first.exit_code() == 75
    assert "another manager has the model" in first.output()
    assert second.code is None
    await installation.outcomes()
    installation.check_chain()
    assert installation.read("SELECT id FROM t ORDER BY id") == [(0,), (1,), (2,)]


async def test_a_restore_that_outlasts_the_lease(installation: Installation) -> None:
    """A manager whose takeover lasts longer than its lease keeps renewing it; a second one waits in vain."""
    begun = await installation.created(table("id"))
    assert await begun.leave() == 0
    plan = {"manager.take_over.fence.end": {"action": "delay", "delay_ms": 3_500}}
    first = installation.manager(plan, TEATREE_MANAGER_LEASE_MS="2000")
    await until(lambda: installation.manager_pid() == first.pid)
    second = installation.manager(TEATREE_MANAGER_TAKE_OVER_WAIT_MS="3000")
    assert await second.exit_code() == 75
    assert (await installation.send("append", rows(1), "a1"))["kind"] == "done"
    assert await first.leave() == 0


async def test_slow_reads_cost_no_lease(installation: Installation) -> None:
    """A manager renews its lease and publishes outcomes while all of its read workers run slow reads."""
    first = await installation.created(
        table("id"), TEATREE_MANAGER_LEASE_MS="2000", TEATREE_LIMITS_QUERY_TIME_MS_MAX="5000"
    )
    await installation.ask("SELECT 1")
    slow = b'{"sql": "SELECT count(*) FROM range(1000000000) a(i), range(1000000) b(j) WHERE (i * j) % 7 = 3"}'
    subject = installation.bus.subjects.query(MODEL, "query")
    reads = [
        asyncio.create_task(installation.bus.request(subject, slow, timeout_ms=60_000))
        for _ in range(ReadSettings().workers_max)
    ]
    second = installation.manager(TEATREE_MANAGER_TAKE_OVER_WAIT_MS="3500")
    assert (await installation.send("append", rows(1), "a1"))["kind"] == "done"
    assert not any(read.done() for read in reads)
    assert await second.exit_code() == 75
    await asyncio.gather(*reads)
    assert await first.leave() == 0


@pytest.mark.parametrize("place", ["manager.ship.manifest.begin", "manager.ship.manifest.end"])
async def test_paused(installation: Installation, tmp_path: Path, place: str) -> None:
    """A manager paused while it uploads, continued when another has taken over, changes nothing and exits."""
    plan = {place: {"action": "stop", "hit": 3}}
    first = await installation.created(table("id"), plan, TEATREE_HOST="one", **LAPSES_SOON)
    await installation.send("append", rows(1), "a1")
    await installation.ask("SELECT 1", min_version=installation.chain.newest_version())  # there is a snapshot file
    await installation.publish("append", rows(2), "a2")
    await first.is_stopped()
    await installation.publish("append", rows(3), "a3")
    other = tmp_path / "other"
    second = installation.manager(data=other, TEATREE_HOST="two", **LAPSES_SOON)
    for i in (4, 5):
        await installation.send("append", rows(i), f"a{i}")
    await installation.send("archive", {}, "archive")
    newest = installation.chain.newest_version()
    await until(lambda: catalog(installation)["model"][0][2] == newest)
    await _head_and_mark_follow(installation, newest)
    before = (installation.objects(), catalog(installation), await installation.outcomes())
    links = {data: _link(installation, data) for data in (None, other)}
    first.send(signal.SIGCONT)
    assert await first.exit_code() == 75
    after = (installation.objects(), catalog(installation), await installation.outcomes())
    assert {key: after[0].get(key) for key in before[0]} == before[0]
    assert not [key for key in set(after[0]) - set(before[0]) if "/manifests/" in key]
    for name in ("versions", "contents", "requests"):  # the second manager may still be adding its archive
        assert not [row for row in before[1][name] if row not in after[1][name]]
    assert after[1]["model"] == before[1]["model"]
    assert after[2] == before[2]
    for data, link in links.items():
        assert _link(installation, data) >= link
    assert second.code is None
    await _check_resumed(installation, second)


async def _head_and_mark_follow(installation: Installation, newest: int) -> None:
    """Wait until the objects that lag behind the versions name the newest one."""
    await until(lambda: _head(installation) == newest)
    await until(lambda: _mark(installation) == newest)


def _head(installation: Installation) -> int:
    """Return the version of the `head` object."""
    head = read_head(installation.chain.store, installation.chain.folder)
    return head.version if head else 0


def _mark(installation: Installation) -> int | None:
    """Return the version that the mark of published versions names."""
    chain = installation.chain
    return read_members(chain.store, f"{chain.folder}/published", "The mark", lambda mark: int(mark["version"]))


def _link(installation: Installation, data: Path | None) -> int:
    current = installation.local(data).current
    assert open_elsewhere(current).stderr == "" or current.exists()
    return int(current.readlink().stem)


async def _check_resumed(installation: Installation, second: Running) -> None:
    assert (await installation.send("append", rows(6), "a6"))["kind"] == "done"
    assert await second.leave() == 0
    installation.check_chain()
    await installation.outcomes()
    assert installation.read("SELECT id FROM t ORDER BY id") == [(i,) for i in range(1, 7)]


@pytest.mark.parametrize("place", ["manager.take_over.fence.begin", "manager.take_over.fence.end"])
async def test_paused_while_it_takes_over(installation: Installation, tmp_path: Path, place: str) -> None:
    """A manager paused while it takes over, continued when another has done so, changes nothing and exits."""
    begun = await installation.created(table("id"), TEATREE_HOST="one")
    await installation.send("append", rows(1), "a1")
    assert await begun.leave() == 0
    await installation.publish("append", rows(2), "a2")
    first = installation.manager({place: {"action": "stop"}}, TEATREE_HOST="one", **LAPSES_SOON)
    await first.is_stopped()
    second = installation.manager(data=tmp_path / "other", TEATREE_HOST="two", **LAPSES_SOON)
    for i in (3, 4, 5):
        await installation.send("append", rows(i), f"a{i}")
    await _head_and_mark_follow(installation, installation.chain.newest_version())
    before, outcomes = installation.objects(), await installation.outcomes()
    first.send(signal.SIGCONT)
    assert await first.exit_code() == 75
    after = installation.objects()
    assert {key: after.get(key) for key in before} == before
    assert not [key for key in set(after) - set(before) if "/manifests/" in key]
    assert await installation.outcomes() == outcomes
    await _check_resumed(installation, second)
