"""A log that was replaced, purged or truncated: its models stop with an error for an operator."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from commands import run_command
from processes import MODEL, Installation, ManagerServer, Running, rows, table, until
from teatree.cli.main import run
from teatree.contracts.environment import connection_environ
from teatree.contracts.settings import Settings
from teatree.embedded.nats import NatsServer
from teatree.messaging.log import LogReader
from teatree.messaging.notices import read_notices
from teatree.messaging.streams import ensure_streams, log_state
from teatree.storage.catalog.migrations.migrate import migrate

ADVANCE = ("log", "advance", "--json")


async def begin(installation: Installation) -> Running:
    """Return a manager whose model has three requests."""
    manager = await installation.created(table("id"))
    for i in (1, 2):
        assert (await installation.send("append", rows(i), f"a{i}"))["kind"] == "done"
    return manager


async def replace_log(installation: Installation, requests: int) -> None:
    """Delete the log and create it again, with some requests in it."""
    await installation.bus.js(f"STREAM.DELETE.{installation.bus.subjects.requests_stream}")
    await ensure_streams(installation.bus, log_bytes_max=50_000_000, notices_age_s=3600, notices_max=10_000)
    installation.sent.clear()
    for i in range(requests):
        await installation.publish("append", rows(100 + i), f"new{i}")


def recorded_error(installation: Installation) -> dict[str, Any]:
    """Return the error of the stopped model in the catalog."""
    with installation.postgres() as connection:
        found = connection.execute("SELECT error FROM goal_model WHERE name = %s", (MODEL,)).fetchone()
    assert found is not None
    error: dict[str, Any] = found[0]
    return error


async def stops_with(installation: Installation, manager: Running, code: str) -> None:
    """Wait for a manager to stop for an operator, with its error in its log and in the catalog."""
    assert await manager.exit_code() == 78
    assert f"{code}: " in manager.output()
    assert "Traceback" not in manager.output()
    assert recorded_error(installation)["code"] == code


@pytest.mark.parametrize("requests", [0, 2, 6])
async def test_replaced_under_a_manager(installation: Installation, requests: int) -> None:
    """The stream deleted and created again under a running manager, shorter or longer: it stops and applies nothing."""
    manager = await begin(installation)
    newest = installation.chain.newest_version()
    await replace_log(installation, requests)
    await stops_with(installation, manager, "log_replaced")
    assert installation.chain.newest_version() == newest
    assert installation.read("SELECT id FROM t ORDER BY id") == [(1,), (2,)]


async def test_deleted_under_a_manager(installation: Installation) -> None:
    """The stream deleted and not created again: the manager stops with an error that names it."""
    manager = await begin(installation)
    await installation.bus.js(f"STREAM.DELETE.{installation.bus.subjects.requests_stream}")
    await stops_with(installation, manager, "log_replaced")
    assert installation.bus.subjects.requests_stream in manager.output()


async def test_replaced_while_stopped(installation: Installation) -> None:
    """The stream created again while the model has no manager: each manager that starts stops with the error."""
    manager = await begin(installation)
    assert await manager.leave() == 0
    await replace_log(installation, 6)
    for _ in range(2):
        await stops_with(installation, installation.manager(), "log_replaced")
    assert installation.read("SELECT id FROM t ORDER BY id") == [(1,), (2,)]


async def test_dispatcher_with_a_replaced_log(installation: Installation) -> None:
    """With a dispatcher too the model stops, and its requests are neither lost nor rejected."""
    dispatcher = installation.dispatcher()
    await installation.send("create_model", table("id"), "create")
    assert (await installation.send("append", rows(1), "a1"))["kind"] == "done"
    await replace_log(installation, 1)
    await dispatcher.until_printed("a manager stopped for an operator")
    assert recorded_error(installation)["code"] == "log_replaced"
    assert "new0" not in await installation.notices()


async def test_purged_by_an_operator(installation: Installation) -> None:
    """Requests purged by an operator before they were applied: the model stops."""
    manager = await begin(installation)
    assert await manager.leave() == 0
    last = [await installation.publish("append", rows(10 + i), f"lost{i}") for i in range(3)][-1]
    stream = installation.bus.subjects.requests_stream
    await installation.bus.js(f"STREAM.PURGE.{stream}", {"seq": last})
    await stops_with(installation, installation.manager(), "log_purged")
    assert installation.read("SELECT id FROM t ORDER BY id") == [(1,), (2,)]


@pytest.mark.parametrize(("since", "code"), [(0, "log_behind"), (1, "log_replaced"), (5, "log_replaced")])
async def test_restored_from_an_older_copy(
    service_settings: Settings, manager_server: ManagerServer, tmp_path: Path, since: int, code: str
) -> None:
    """A log restored from an older copy, too short or grown again with other requests: the model stops."""
    migrate(service_settings.postgres)
    with NatsServer(tmp_path / "nats") as nats:
        settings = attrs.evolve(service_settings, nats=nats.settings())
        installation = await Installation.make(settings, manager_server, tmp_path)
        try:
            manager = await begin(installation)
            nats.stop()
            shutil.copytree(tmp_path / "nats" / "jetstream", tmp_path / "copy")
            nats.start()
            await installation.reconnected()
            assert (await installation.send("append", rows(3), "a3"))["kind"] == "done"
            assert await manager.leave() == 0
            nats.stop()
            shutil.rmtree(tmp_path / "nats" / "jetstream")
            (tmp_path / "copy").rename(tmp_path / "nats" / "jetstream")
            nats.start()
            await installation.reconnected()
            for i in range(since):
                await installation.publish("append", rows(100 + i), f"other{i}")
            await stops_with(installation, installation.manager(), code)
            assert installation.read("SELECT id FROM t ORDER BY id") == [(1,), (2,), (3,)]
        finally:
            await installation.close()


# --- a truncated log --------------------------------------------------------------------------------------------------


class RestorableLog:
    """An installation with a separate NATS, whose log can be restored from a copy."""

    def __init__(self, installation: Installation, nats: NatsServer, folder: Path, monkeypatch: Any) -> None:
        self.installation = installation
        self._nats = nats
        self._jetstream = folder / "nats" / "jetstream"
        self._copy = folder / "copy"
        for name, value in connection_environ(installation.settings).items():
            monkeypatch.setenv(name, value)

    async def keep(self) -> None:
        """Copy the log as it is now."""
        self._nats.stop()
        shutil.rmtree(self._copy, ignore_errors=True)
        shutil.copytree(self._jetstream, self._copy)
        self._nats.start()
        await self.installation.reconnected()

    async def restore(self) -> None:
        """Put the copy in the log's place: later requests are lost."""
        self._nats.stop()
        shutil.rmtree(self._jetstream)
        shutil.copytree(self._copy, self._jetstream)
        self._nats.start()
        await self.installation.reconnected()

    async def cut_off(self, size_bytes: int, *, index: bool) -> None:
        """Truncate the log's newest block, as a power cut would; without `index` NATS' index is lost too."""
        self._nats.stop()
        folder = next(self._jetstream.rglob("streams/REQUESTS"))
        newest = max(folder.glob("msgs/*.blk"), key=lambda path: int(path.stem))
        os.truncate(newest, newest.stat().st_size - size_bytes)
        if not index:
            (folder / "msgs" / "index.db").unlink()
        self._nats.start()
        await self.installation.reconnected()

    async def others(self, count: int) -> None:
        """Publish requests to another model."""
        subject = self.installation.bus.subjects.request("other", "append")
        for _ in range(count):
            await self.installation.bus.publish_log(subject, b"{}")

    async def advance(self) -> dict[str, Any]:
        """Run `teatree log advance`; return its report."""
        done = await asyncio.to_thread(run_command, dict(os.environ), *ADVANCE)
        assert done.code == 0, done.err
        report: dict[str, Any] = done.json
        return report

    async def advance_killed(self, plan: Path) -> None:
        """Run `teatree log advance` as a process that a failpoint of this plan kills."""
        environ = {**os.environ, "TEATREE_FAILPOINTS": str(plan)}
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", "teatree.cli.main", *ADVANCE, env=environ)
        assert await process.wait() == -signal.SIGKILL


@pytest.fixture
async def restorable(
    service_settings: Settings, manager_server: ManagerServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[RestorableLog]:
    """Return an installation whose log can be restored."""
    migrate(service_settings.postgres)
    with NatsServer(tmp_path / "nats") as nats:
        settings = attrs.evolve(service_settings, nats=nats.settings())
        installation = await Installation.make(settings, manager_server, tmp_path)
        yield RestorableLog(installation, nats, tmp_path, monkeypatch)
        await installation.close()


async def lose_three(restorable: RestorableLog) -> Running:
    """Return a paused manager whose model has applied three requests that the log has lost now."""
    installation = restorable.installation
    manager = await begin(installation)
    await restorable.keep()
    for i in (3, 4, 5):
        assert (await installation.send("append", rows(i), f"a{i}"))["kind"] == "done"
    manager.send(signal.SIGSTOP)
    await restorable.restore()
    return manager


@pytest.mark.parametrize(
    ("others", "own"),
    [
        (0, 0),
        (0, 3),
        (9, 0),
        (2, 4),
        *(pytest.param(*c, marks=pytest.mark.slow) for c in ((0, 2), (0, 6), (3, 0), (4, 2))),
    ],
    ids=str,
)
async def test_truncated_and_advanced(restorable: RestorableLog, others: int, own: int) -> None:
    """A log restored under a manager, and grown before it looks: it stops, and resumes after `log advance`.

    Requests accepted since take effect in their order; lost requests that are sent again take effect exactly once.
    """
    installation = restorable.installation
    manager = await lose_three(restorable)
    await restorable.others(others)
    for i in range(own):
        await installation.publish("append" if i else "create_table", _more(i), f"since{i}")
    newest = installation.chain.newest_version()
    manager.send(signal.SIGCONT)
    assert await manager.exit_code() == 78, manager.output()
    assert recorded_error(installation)["code"] in ("log_behind", "log_replaced")
    assert installation.chain.newest_version() == newest
    for _ in range(2):  # every further manager finds the same
        assert await installation.manager().exit_code() == 78

    report = await restorable.advance()
    assert [stalled["model"] for stalled in report["stalled_models"]] == [MODEL]
    assert report["stalled_models"][0]["again"] == (own if own and others < 3 else 0)
    again = await restorable.advance()
    assert (again["stalled_models"], again["padding_messages"], again["last_seq"]) == ([], 0, report["last_seq"])

    installation.manager()
    outcomes = [await installation.outcome(f"since{i}") for i in range(own)]
    assert [outcome["kind"] for outcome in outcomes] == ["done"] * own
    first = {f"a{i}": await installation.outcome(f"a{i}") for i in (3, 4, 5)}
    for i in (4, 3, 5, 6):
        await installation.publish("append", rows(i), f"a{i}")
    assert (await installation.outcome("a6"))["kind"] == "done"
    wanted = [(i,) for i in range(1, 7)]
    assert installation.read("SELECT id FROM t ORDER BY id") == wanted
    assert (await installation.outcomes(first)) == first
    if own:
        assert installation.read("SELECT id FROM u ORDER BY id") == [(i,) for i in range(1, own)]
    assert (await restorable.advance())["stalled_models"] == []
    installation.check_chain()


def _more(i: int) -> dict[str, Any]:
    if i == 0:
        return {"table": "u", "columns": [{"name": "id", "type": "BIGINT"}]}
    return {"table": "u", "rows": [{"id": i}]}


@pytest.mark.parametrize("place", ["fill.end", "copy.end", "mark.begin", "mark.end"])
async def test_advance_killed(restorable: RestorableLog, tmp_path: Path, place: str) -> None:
    """Killed between its steps and run again, `log advance` has the same result; also for requests without an id."""
    installation = restorable.installation
    manager = await lose_three(restorable)
    await installation.publish("append", rows(10), "since0")
    subject = installation.bus.subjects.request(MODEL, "append", "anna")
    await installation.bus.publish_log(subject, json.dumps(rows(11)).encode())
    await installation.bus.publish_log(subject, json.dumps(rows(12)).encode(), {"Nats-Msg-Id": "since2"})
    manager.send(signal.SIGCONT)
    assert await manager.exit_code() == 78
    plan = tmp_path / "advance.json"
    plan.write_text(json.dumps({f"log.advance.{place}": {"action": "crash"}}))
    await restorable.advance_killed(plan)
    if place == "copy.end":
        assert await installation.manager().exit_code() == 78
    report = await restorable.advance()
    assert len(report["stalled_models"]) == (place != "mark.end")
    installation.manager()
    assert (await installation.send("append", rows(13), "since3"))["kind"] == "done"
    assert installation.read("SELECT id FROM t ORDER BY id") == [(i,) for i in (1, 2, 3, 4, 5, 10, 11, 12, 13)]
    assert (await installation.outcome("since2"))["kind"] == "done"
    log = (await LogReader(installation.bus, MODEL).read(0, requests_max=99, bytes_max=10**6)).requests
    assert {r.sender for r in log if r.request_id == "since2" or r.request_id.startswith("again-")} == {"anna"}


@pytest.mark.parametrize(
    ("since", "index"),
    [
        (0, False),
        (1, True),
        (5, False),
        *(pytest.param(*c, marks=pytest.mark.slow) for c in ((0, True), (1, False), (2, False), (2, True), (5, True))),
    ],
)
async def test_newest_block_cut_off(restorable: RestorableLog, since: int, index: bool) -> None:  # noqa: FBT001
    """With a truncated newest block, however NATS recovers it, the model stops, and resumes after `log advance`."""
    installation = restorable.installation
    manager = await begin(installation)
    manager.send(signal.SIGSTOP)
    await restorable.cut_off(100, index=index)
    for i in range(since):
        await installation.publish("append", rows(10 + i), f"since{i}")
    manager.send(signal.SIGCONT)
    assert await manager.exit_code() == 78, manager.output()
    assert recorded_error(installation)["code"] in ("log_behind", "log_replaced")
    assert len((await restorable.advance())["stalled_models"]) == 1
    installation.manager()
    for i in (1, 2):
        await installation.publish("append", rows(i), f"a{i}")
    assert (await installation.send("append", rows(3), "a3"))["kind"] == "done"
    wanted = [1, 2, 3, *(10 + i for i in range(since))]
    assert installation.read("SELECT id FROM t ORDER BY id") == [(i,) for i in wanted]
    assert not await installation.waiting()


async def test_lost_twice(restorable: RestorableLog) -> None:
    """An advance holds for one loss only: when the log is truncated once more, the model stops again."""
    installation = restorable.installation
    manager = await lose_three(restorable)
    manager.send(signal.SIGCONT)
    assert await manager.exit_code() == 78
    await restorable.advance()
    second = installation.manager()
    assert await installation.ask("SELECT count(*) AS n FROM t") == [{"n": 5}]
    second.send(signal.SIGSTOP)
    await restorable.restore()
    await restorable.others(9)
    second.send(signal.SIGCONT)
    assert await second.exit_code() == 78
    assert await installation.manager().exit_code() == 78
    assert len((await restorable.advance())["stalled_models"]) == 1
    installation.manager()
    assert (await installation.send("append", rows(6), "a6"))["kind"] == "done"
    assert installation.read("SELECT count(*) FROM t") == [(6,)]


async def test_unshipped_when_lost(restorable: RestorableLog) -> None:
    """What a killed manager had applied and not published is published, then the model stops for the lost request."""
    installation = restorable.installation
    manager = await begin(installation)
    await restorable.keep()
    await manager.leave()
    manager = installation.manager({"manager.ship.manifest.begin": {"action": "crash"}})
    await installation.publish("append", rows(3), "a3")
    assert await manager.exit_code() == -signal.SIGKILL
    await restorable.restore()
    await restorable.others(4)
    await stops_with(installation, installation.manager(), "log_replaced")
    assert installation.read("SELECT id FROM t ORDER BY id") == [(1,), (2,), (3,)]
    assert len((await restorable.advance())["stalled_models"]) == 1
    installation.manager()
    assert (await installation.send("append", rows(3), "a3"))["kind"] == "done"
    assert (await installation.send("append", rows(4), "a4"))["kind"] == "done"
    assert installation.read("SELECT id FROM t ORDER BY id") == [(1,), (2,), (3,), (4,)]


async def test_purged_and_advanced(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a purge of requests that were not applied, `log advance` lets the model resume without them."""
    for name, value in connection_environ(installation.settings).items():
        monkeypatch.setenv(name, value)
    manager = await begin(installation)
    assert await manager.leave() == 0
    last = [await installation.publish("append", rows(10 + i), f"lost{i}") for i in range(3)][-1]
    stream = installation.bus.subjects.requests_stream
    await installation.bus.js(f"STREAM.PURGE.{stream}", {"seq": last})
    await stops_with(installation, installation.manager(), "log_purged")
    assert await asyncio.to_thread(run, ["log", "advance", "--yes"]) == 0
    installation.manager()
    assert (await installation.outcome("lost2"))["kind"] == "done"
    assert installation.read("SELECT id FROM t ORDER BY id") == [(1,), (2,), (12,)]


@pytest.mark.parametrize(("is_idle", "since"), [(False, 1), (True, 1), (True, 20)], ids=str)
async def test_advance_with_a_dispatcher(restorable: RestorableLog, is_idle: bool, since: int) -> None:  # noqa: FBT001
    """The dispatcher checks stopped models too, and starts managers after the advance; padding gets no outcome."""
    installation = restorable.installation
    dispatcher = installation.dispatcher(TEATREE_MANAGER_IDLE_EXIT_MS="500" if is_idle else "0")
    await installation.send("create_model", table("id"), "create")
    await restorable.keep()
    for i in range(20):
        await installation.publish("append", rows(i), f"a{i}")
    assert (await installation.outcome("a19"))["kind"] == "done"
    if is_idle:
        await until(lambda: installation.manager_pid() is None)
    await restorable.restore()
    for i in range(since):
        await installation.publish("append", rows(100 + i), f"since{i}")
    await dispatcher.until_printed("a manager stopped for an operator")
    report = await restorable.advance()
    assert report["padding_messages"] == max(0, 20 - since)
    assert report["stalled_models"][0]["again"] == since
    assert {(await installation.outcome(f"since{i}"))["kind"] for i in range(since)} == {"done"}
    assert installation.read("SELECT count(*) FROM t") == [(20 + since,)]
    subjects = [m.subject for m in await read_notices(installation.bus, installation.bus.subjects.notices_all)]
    assert not [subject for subject in subjects if "._" in subject]
    assert "cannot be looked after" not in dispatcher.output()
    assert not list(installation.settings.data.glob("_*"))


async def test_nothing_wrong(installation: Installation, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """With an intact log `log advance` changes nothing, and prints that."""
    for name, value in connection_environ(installation.settings).items():
        monkeypatch.setenv(name, value)
    await begin(installation)
    before = await log_state(installation.bus)
    assert await asyncio.to_thread(run, ["log", "advance", "--yes"]) == 0
    assert "nothing was changed" in capsys.readouterr().out
    assert (await log_state(installation.bus)).last_seq == before.last_seq
