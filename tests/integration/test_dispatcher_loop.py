"""The dispatcher's loop against a real log and a real chain, with fake managers that the test controls."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta

import attrs
import pytest

from dispatcher_world import SETTINGS, FakeLauncher, World, in_log, until
from teatree.contracts.errors import Code
from teatree.contracts.formats.manifest import ModelState, StreamStamp
from teatree.contracts.formats.requests import LogPosition
from teatree.contracts.names import goal_model_id
from teatree.contracts.read_settings import ReadSettings
from teatree.contracts.settings import PostgresSettings
from teatree.messaging.asked_reads import AskedRead
from teatree.messaging.direct import last_messages
from teatree.messaging.log import LogReader
from teatree.messaging.log_check import Advance, fault_of
from teatree.messaging.notices import last_notice, read_notices
from teatree.messaging.service import serve
from teatree.messaging.streams import log_state, purge_log
from teatree.storage.catalog.catalog import Catalog
from teatree.storage.catalog.migrations.migrate import migrate
from teatree.storage.catalog.postgres import Postgres
from teatree.storage.catalog.rows import ModelColumns
from teatree_dispatcher.model_registry import ModelRegistry
from teatree_dispatcher.purge import purge


class TestManagers:
    async def test_first_request(self, world: World) -> None:
        """A `create_model` starts one manager, and nothing is rejected."""
        world.start()
        await world.send("sales", "create_model", "a")
        await until(lambda: world.launcher.launched == ["sales"])
        for i in range(20):
            await world.send("sales", "append", f"b{i}")
        await world.rounds()
        assert world.launcher.launched == ["sales"]
        assert await read_notices(world.bus, world.bus.subjects.notices_all) == []

    async def test_waiting_requests(self, world: World) -> None:
        """Requests sent while no dispatcher ran are found when one starts; models without new ones get no manager."""
        await world.send("sales", "create_model", "a")
        await world.send("rest", "create_model", "b")
        await world.send("behind", "create_model", "c")
        await world.send("behind", "append", "d")
        world.publish("rest", 2, ModelState.ACTIVE)
        world.publish("behind", 3, ModelState.ACTIVE)
        world.start()
        await until(lambda: sorted(world.launcher.launched) == ["behind", "sales"])
        await world.rounds()
        assert sorted(world.launcher.launched) == ["behind", "sales"]

    async def test_found_again(self, world: World) -> None:
        """A manager that outlived its dispatcher is found: no second one is started."""
        await world.send("sales", "create_model", "a")
        world.launcher.alive.add("sales")
        world.start()
        await world.send("sales", "append", "b")
        await world.rounds()
        assert world.launcher.launched == []

    async def test_dead_manager(self, world: World) -> None:
        """A manager that crashes is started again, with back-off while it makes no progress."""
        world.launcher.dies_with = -9
        await world.send("sales", "create_model", "a")
        world.start()
        await until(lambda: len(world.launcher.launched) >= 4)
        world.launcher.dies_with = None
        await until(lambda: "sales" in world.launcher.alive)
        count = len(world.launcher.launched)
        world.publish("sales", 1, ModelState.ACTIVE)
        world.launcher.end("sales", -9)
        await world.rounds()
        assert len(world.launcher.launched) == count  # no request is waiting

    async def test_request_while_leaving(self, world: World) -> None:
        """A request that arrives while an idle manager exits starts the next manager."""
        await world.send("sales", "create_model", "a")
        world.start()
        await until(lambda: "sales" in world.launcher.alive)
        world.publish("sales", 1, ModelState.ACTIVE)
        await world.send("sales", "append", "b")  # the exiting manager does not read it any more
        world.launcher.end("sales", 0)
        await until(lambda: world.launcher.launched == ["sales", "sales"])

    @pytest.mark.parametrize("looks", range(1, 5))
    async def test_leaving_during_a_look(self, world: World, looks: int) -> None:
        """A manager that applied everything and exits while the dispatcher checks its model is not started again."""
        await world.send("sales", "create_model", "a")
        world.start()
        await until(lambda: "sales" in world.launcher.alive)
        left = iter(range(looks))

        def leave(model: str) -> None:
            if model in world.launcher.alive and next(left, None) is None:
                world.publish(model, 1, ModelState.ACTIVE)
                world.launcher.end(model, 0)

        world.launcher.when_asked = leave
        await until(lambda: not world.launcher.alive)
        await world.rounds()
        assert world.launcher.launched == ["sales"]

    async def test_operator(self, world: World) -> None:
        """A manager that stops for an operator is not started again until its files have changed."""
        world.launcher.dies_with = 78
        await world.send("sales", "create_model", "a")
        world.start()
        await until(lambda: len(world.launcher.launched) == 1)
        await world.rounds()
        assert len(world.launcher.launched) == 1
        world.launcher.print = "repaired"
        await until(lambda: len(world.launcher.launched) == 2)

    async def test_limit(self, world: World) -> None:
        """No more managers run than the limit; the next model has its turn when one exits."""
        for model in ("a", "b", "c"):
            await world.send(model, "create_model", "x")
        world.start(world.make(world.launcher, attrs.evolve(SETTINGS, managers_max=2)))
        await until(lambda: len(world.launcher.alive) == 2)
        await world.rounds()
        assert len(world.launcher.launched) == 2
        left = world.launcher.launched[0]
        world.publish(left, {"a": 1, "b": 2, "c": 3}[left], ModelState.ACTIVE)
        world.launcher.end(left, 0)
        await until(lambda: sorted(world.launcher.launched) == ["a", "b", "c"])

    async def test_other_log(self, world: World) -> None:
        """A model of another log gets its manager, which reports it; none of its requests is rejected or purged."""
        world.publish("sales", 1_000, ModelState.DROPPED, created="2020-01-01T00:00:00Z")
        await world.send("sales", "append", "a")
        world.start(world.make(world.launcher, attrs.evolve(SETTINGS, retention_days=0)))
        await until(lambda: world.launcher.launched == ["sales"])
        await world.rounds()
        assert await in_log(world.bus) == {"sales": 1}
        assert await read_notices(world.bus, world.bus.subjects.notices_all) == []

    async def test_lost_end(self, world: World) -> None:
        """An idle model whose last request is not in the log any more gets its manager, once, which reports it."""
        for i in range(3):
            await world.send("sales", "append" if i else "create_model", f"a{i}")
        del world.accepted_at[3]  # another request has its number
        world.publish("sales", 3, ModelState.ACTIVE)
        await world.send("stock", "create_model", "b")
        world.publish("stock", 4, ModelState.ACTIVE)
        world.launcher.dies_with = 78
        world.start()
        await until(lambda: world.launcher.launched == ["sales"])
        await world.rounds()
        assert world.launcher.launched == ["sales"]
        world.launcher.dies_with = None
        await world.bus.publish_log(world.bus.subjects.advanced("stock"), b"{}")
        await until(lambda: world.launcher.launched == ["sales", "sales"])

    async def test_outage(self, world: World) -> None:
        """Without its log the dispatcher waits, and resumes when the log exists again."""
        world.start()
        await world.rounds()
        stream = world.bus.subjects.requests_stream
        config = (await world.bus.js(f"STREAM.INFO.{stream}"))["config"]
        await world.bus.js(f"STREAM.DELETE.{stream}")
        await world.rounds()
        await world.bus.js(f"STREAM.CREATE.{stream}", config)
        await world.send("sales", "create_model", "a")
        await until(lambda: world.launcher.launched == ["sales"])


class TestOutsideIncarnation:
    async def test_never_created(self, world: World) -> None:
        """A request to a model that never existed is rejected; nothing is launched."""
        world.start()
        await world.send("sales", "append", "a")
        outcome = await world.outcome("sales", "a")
        assert (outcome["kind"], outcome["seq"], outcome["function"]) == ("rejected", 1, "append")
        assert outcome["error"]["code"] == "unknown_model"  # type: ignore[index]
        await world.rounds()
        assert world.launcher.launched == []

    async def test_by_sequence(self, world: World) -> None:
        """Exactly the requests between two incarnations are rejected, in whatever state the dispatcher finds them."""
        await world.send("sales", "create_model", "a")
        await world.send("sales", "append", "b")
        await world.send("sales", "drop_model", "c")
        await world.send("sales", "append", "d")
        await world.send("sales", "query", "e")
        await world.send("sales", "create_model", "f")
        await world.send("sales", "append", "g")
        world.publish("sales", 3, ModelState.DROPPED)
        world.start()
        await world.outcome("sales", "d")
        await world.outcome("sales", "e")
        await until(lambda: world.launcher.launched == ["sales"])
        await world.rounds()
        notices = await read_notices(world.bus, world.bus.subjects.notices_all)
        assert [json.loads(m.body)["request_id"] for m in notices] == ["d", "e"]
        # The second incarnation did not begin: its create_model was rejected, and what follows is outside again.
        world.publish("sales", 6, ModelState.DROPPED)
        await world.outcome("sales", "g")

    async def test_drop_while_served(self, world: World) -> None:
        """After a model was dropped, later requests are rejected though its manager still runs."""
        world.start()
        await world.send("sales", "create_model", "a")
        await until(lambda: "sales" in world.launcher.alive)
        world.publish("sales", 1, ModelState.ACTIVE)
        await world.rounds()
        await world.send("sales", "drop_model", "b")
        await world.send("sales", "append", "c")
        await world.rounds()
        assert await last_notice(world.bus, world.bus.subjects.notify_request("sales", "c")) is None
        world.publish("sales", 2, ModelState.DROPPED)
        assert (await world.outcome("sales", "c"))["kind"] == "rejected"

    async def test_bad_names(self, world: World) -> None:
        """A request with an invalid name or id is rejected as such, and launches nothing."""
        world.start()
        await world.send("Bad-Name", "create_model", "a")
        assert (await world.outcome("Bad-Name", "a"))["error"]["code"] == "bad_name"  # type: ignore[index]
        await world.send("sales", "Bad-Function", "b")
        assert (await world.outcome("sales", "b"))["error"]["code"] == "bad_name"  # type: ignore[index]
        await world.bus.publish_log(f"{world.bus.prefix}.request.sales.append", b"", {"Teatree-Request-Id": "no id!"})
        assert (await world.outcome("sales", "seq-3"))["error"]["code"] == "bad_request_id"  # type: ignore[index]
        await world.rounds()
        assert world.launcher.launched == []

    async def test_again(self, world: World) -> None:
        """Two dispatchers publish identical outcomes; a repeated one does not differ."""
        for i in range(5):
            await world.send("sales", "append", f"a{i}")
        world.start()
        world.start(world.make(FakeLauncher()))
        for i in range(5):
            await world.outcome("sales", f"a{i}")
        await world.rounds()
        notices = await read_notices(world.bus, world.bus.subjects.notices_all)
        assert 5 <= len(notices) <= 10
        assert len({(m.subject, m.body) for m in notices}) == 5

    async def test_wrong_store(self, world: World, postgres_server: PostgresSettings) -> None:
        """Nothing is rejected while the store lacks a version that the catalog lists."""
        migrate(postgres_server)
        catalog = Catalog(Postgres(postgres_server))
        columns = ModelColumns(
            goal_model_id=goal_model_id(world.bus.prefix, "sales"),
            name="sales",
            engine="duckdb",
            lifecycle="active",
            version=3,
            applied_offset=7,
            epoch=1,
            options={},
            tables=(),
            size_bytes=0,
            store_url="",
        )
        catalog.record_versions(columns, ())
        await world.send("sales", "append", "a")
        await world.send("stock", "append", "b")
        world.start(world.make(world.launcher, catalog=catalog))
        await world.outcome("stock", "b")
        await world.rounds()
        assert await last_notice(world.bus, world.bus.subjects.notify_request("sales", "a")) is None
        for _ in range(3):
            world.publish("sales", 0, ModelState.ABSENT)
        await world.outcome("sales", "a")

    async def test_many(self, world: World) -> None:
        """Thousands of requests to an unknown model are all rejected, and do not delay others."""
        subject = world.bus.subjects.request("sales", "append")
        frames = [world.bus.frame(subject, b"{}", {"Teatree-Request-Id": f"a{i}"}) for i in range(3_000)]
        await world.bus.send(frames)
        await world.send("other", "create_model", "x")
        world.start()
        await until(lambda: world.launcher.launched == ["other"])
        await world.outcome("sales", "a2999")
        state = (await world.bus.js(f"STREAM.INFO.{world.bus.subjects.notices_stream}"))["state"]
        assert state["messages"] == 3_000

    async def test_more_than_a_turn(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """Requests beyond one turn's limit are rejected in the next turn, not at the next poll."""
        monkeypatch.setattr("teatree_dispatcher.rejecter.READ_REQUESTS_MAX", 10)
        subject = world.bus.subjects.request("sales", "append")
        await world.bus.send([world.bus.frame(subject, b"{}", {"Teatree-Request-Id": f"a{i}"}) for i in range(500)])
        await world.send("sales", "append", "last")
        world.start(world.make(world.launcher, attrs.evolve(SETTINGS, poll_ms=3_600_000)))
        assert (await world.outcome("sales", "last"))["kind"] == "rejected"


class TestReads:
    async def test_wakes_manager(self, world: World) -> None:
        """A direct read of a stopped model starts its manager; the reply asks the sender to retry."""
        await world.send("sales", "create_model", "a")
        world.publish("sales", 1, ModelState.ACTIVE)
        world.start()
        await world.rounds()
        assert world.launcher.launched == []
        reply = await world.bus.request(world.bus.subjects.query("sales", "query"), b"{}", timeout_ms=5_000)
        assert json.loads(reply.body)["error"]["code"] == "unavailable"
        assert world.launcher.launched == ["sales"]

    async def test_silent_while_served(self, world: World) -> None:
        """While a manager runs, the dispatcher does not reply."""
        await world.send("sales", "create_model", "a")
        world.start()
        await until(lambda: "sales" in world.launcher.alive)

        async def answer(read: AskedRead) -> tuple[bytes, dict[str, str]]:
            await asyncio.sleep(0.3)
            return read.function.encode(), {}

        async with await serve(world.bus, "sales", answer, ReadSettings(), version="1.0.0"):
            await world.rounds()
            reply = await world.bus.request(world.bus.subjects.query("sales", "query"), b"{}", timeout_ms=5_000)
            assert reply.body == b"query"

    @pytest.mark.parametrize(("model", "code"), [("unknown", "unknown_model"), ("Bad-Name", "bad_name")])
    async def test_no_model(self, world: World, model: str, code: str) -> None:
        """A read of an unknown model gets its error at once."""
        world.start()
        await world.rounds()
        reply = await world.bus.request(f"{world.bus.prefix}.query.{model}.query", b"{}", timeout_ms=5_000)
        assert json.loads(reply.body)["error"]["code"] == code
        assert world.launcher.launched == []


class TestPurge:
    async def test_only_done_and_old(self, world: World) -> None:
        """Old requests are purged only up to what the chain holds; managers see that the dispatcher purged them."""
        for i in range(5):
            await world.send("sales", "append" if i else "create_model", f"a{i}")
        for i in range(5):
            await world.send("stock", "append" if i else "create_model", f"b{i}")
        world.publish("sales", 3, ModelState.ACTIVE)
        world.publish("stock", 10, ModelState.ACTIVE)
        world.launcher.alive |= {"sales", "stock"}
        world.start(world.make(world.launcher, attrs.evolve(SETTINGS, retention_days=0)))
        await world.shrunk(3)
        await world.rounds()
        state = await log_state(world.bus)
        assert (state.messages, state.first_seq, state.purged_before) == (3, 4, 10)
        assert not state.is_lost_after(3)
        assert not state.is_lost_after(10)

    async def test_recent(self, world: World) -> None:
        """Requests within the retention time stay, applied or not."""
        await world.send("sales", "create_model", "a")
        world.publish("sales", 1, ModelState.ACTIVE)
        world.start()
        await world.rounds()
        assert (await log_state(world.bus)).messages == 1

    async def test_rejected(self, world: World) -> None:
        """Rejected requests are purged too; those that wait for a manager are not."""
        await world.send("sales", "append", "a")
        await world.send("sales", "create_model", "b")
        await world.send("Bad-Name", "append", "c")
        world.start(world.make(world.launcher, attrs.evolve(SETTINGS, retention_days=0)))
        await world.outcome("sales", "a")
        await world.outcome("Bad-Name", "c")
        await world.shrunk(2)
        assert await in_log(world.bus) == {"sales": 2, "Bad-Name": 3}

    async def test_last_request_purged(self, world: World) -> None:
        """A model whose last request was purged has no log fault as long as the log was not truncated since."""
        for i in range(3):
            await world.send("sales", "append" if i else "create_model", f"a{i}")
        at = (await LogReader(world.bus, "sales").read(2, requests_max=1, bytes_max=1)).requests[0].position
        await world.send("stock", "create_model", "b")
        world.publish("sales", 3, ModelState.ACTIVE)
        world.publish("stock", 4, ModelState.ACTIVE)
        world.launcher.alive |= {"sales", "stock"}
        world.start(world.make(world.launcher, attrs.evolve(SETTINGS, retention_days=0)))
        await world.shrunk(1)
        state = await log_state(world.bus)
        stamp = StreamStamp(state.name, state.created)
        assert await fault_of(world.bus, state, "sales", stamp, at) is None
        await world.bus.js(f"STREAM.MSG.DELETE.{state.name}", {"seq": 4})
        fault = await fault_of(world.bus, state, "sales", stamp, at)
        assert fault is not None
        assert fault.code is Code.LOG_REPLACED

    async def test_fault(self, world: World) -> None:
        """While a model has a log fault nothing is purged, which would hide the fault; after an advance it is again."""
        position = await self._regrown(world)
        world.start(world.make(world.launcher, attrs.evolve(SETTINGS, retention_days=0)))
        await until(lambda: world.launcher.launched == ["sales"])
        await world.rounds()
        assert await self._code(world, position) is Code.LOG_REPLACED
        assert (await log_state(world.bus)).messages == 8
        mark = Advance(position.seq, position.at, go_on_after=position.seq, first_seq=1)
        await world.bus.publish_log(world.bus.subjects.advanced("sales"), mark.to_json())
        await world.shrunk(2)  # the mark and the last request

    async def test_accepted_again(self, world: World) -> None:
        """After an advance a model keeps its fault until it has resumed: so it begins behind the mark."""
        position = await self._regrown(world)
        mark = Advance(position.seq, position.at, go_on_after=position.seq + 1, first_seq=1)
        await world.bus.publish_log(world.bus.subjects.advanced("sales"), mark.to_json())
        again = await world.send("sales", "append", "again")
        world.start(world.make(world.launcher, attrs.evolve(SETTINGS, retention_days=0)))
        await until(lambda: world.launcher.launched == ["sales"])
        await world.rounds()
        assert await self._code(world, position) is Code.LOG_REPLACED
        world.publish("sales", again, ModelState.ACTIVE)
        await world.shrunk(2)

    async def _regrown(self, world: World) -> LogPosition:
        """Make a log that was truncated and grew again; return the position of sales, which is now stock's request."""
        for i in range(4):
            await world.send("sales", "append" if i else "create_model", f"a{i}")
        for i in range(4):
            await world.send("stock", "append" if i else "create_model", f"b{i}")
        world.publish("stock", 8, ModelState.ACTIVE)
        position = LogPosition(8, world.accepted_at[1] - timedelta(hours=1))
        world.accepted_at[8] = position.at
        world.publish("sales", 8, ModelState.ACTIVE)
        world.launcher.alive.add("stock")
        world.launcher.dies_with = 78
        return position

    async def _code(self, world: World, position: LogPosition) -> Code | None:
        state = await log_state(world.bus)
        fault = await fault_of(world.bus, state, "sales", StreamStamp(state.name, state.created), position)
        return fault.code if fault else None

    async def test_other_logs_model(self, world: World) -> None:
        """The requests of a model of another stream are kept; those of the others are purged."""
        await world.send("sales", "append", "a")
        world.publish("sales", 7, ModelState.ACTIVE, created="2020-01-01T00:00:00Z")
        for i in range(4):
            await world.send("stock", "append" if i else "create_model", f"b{i}")
        world.publish("stock", 5, ModelState.ACTIVE)
        world.launcher.alive |= {"sales", "stock"}
        world.start(world.make(world.launcher, attrs.evolve(SETTINGS, retention_days=0)))
        await world.shrunk(2)
        assert await in_log(world.bus) == {"sales": 1, "stock": 5}

    async def test_request_while_purging(self, world: World) -> None:
        """The anchor stays although its model gets a newer request, accepted and applied during the purge."""
        for model in ("sales", "sales", "stock", "stock"):
            await world.send(model, "append", "a")
        await asyncio.sleep(0.5)

        async def done_with(model: str) -> int:
            if model == "sales":
                await world.send("stock", "append", "b")
            return {"sales": 2, "stock": 5}[model]

        registry = ModelRegistry()
        registry.learn(await in_log(world.bus), {})
        days = timedelta(seconds=0.3) / timedelta(days=1)
        assert await purge(world.bus, registry, days, done_with) == 3
        assert await in_log(world.bus) == {"stock": 5}
        assert await self._code(world, LogPosition(2, world.accepted_at[2])) is None

    async def test_lost_anchor(self, world: World) -> None:
        """When the log has lost its anchor, models whose last request is purged from then on have no log fault."""
        for model in ("sales", "stock"):
            await world.send(model, "create_model", "a")
        lost = LogPosition(100, world.accepted_at[1])
        await purge_log(world.bus, {}, lost)
        assert (await log_state(world.bus)).anchor == lost
        await purge_log(world.bus, {"sales": 2}, LogPosition(2, world.accepted_at[2]))
        assert await self._code(world, LogPosition(1, world.accepted_at[1])) is None

    async def test_padding(self, world: World) -> None:
        """Padding messages get no outcome and no manager, and are purged with the requests; marks stay."""
        subjects = world.bus.subjects
        await world.bus.publish_log(subjects.advanced("sales"), b"{}")
        for _ in range(3):
            await world.bus.publish_log(subjects.padding, b"")
        for i in range(3):
            await world.send("sales", "append" if i else "create_model", f"a{i}")
        await world.bus.publish_log(subjects.padding, b"")
        world.publish("sales", 7, ModelState.ACTIVE)
        world.launcher.alive.add("sales")
        world.start(world.make(world.launcher, attrs.evolve(SETTINGS, retention_days=0)))
        await world.shrunk(3)
        await world.rounds()
        left = [
            m.subject for m in await last_messages(world.bus, subjects.requests_stream, [">"], timeout_ms=5_000) or []
        ]
        assert left == [subjects.advanced("sales"), subjects.request("sales", "append"), subjects.padding]
        assert await in_log(world.bus) == {"sales": 7}
        assert world.launcher.launched == []
        assert await read_notices(world.bus, subjects.notices_all) == []

    async def test_purged_by_an_operator(self, world: World) -> None:
        """A purge by an operator is a loss to readers that have not read that far."""
        for i in range(10):
            await world.send("sales", "append", f"a{i}")
        await world.bus.js(f"STREAM.PURGE.{world.bus.subjects.requests_stream}", {"seq": 8})
        state = await log_state(world.bus)
        assert state.is_lost_after(5)
        assert not state.is_lost_after(7)
