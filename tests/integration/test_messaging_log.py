"""The log and the notices against a real NATS server."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from attrs import evolve

from log_bus import bus_with_streams, send
from servers import TestServers
from teatree.contracts.clock import SYSTEM_CLOCK
from teatree.contracts.errors import Code, OperatorError, RequestError, RetryError
from teatree.contracts.formats.notices import TERMINAL_KINDS, NoticeMessage
from teatree.contracts.settings import NatsSettings
from teatree.embedded.nats import NatsServer
from teatree.messaging.batches import BatchPublisher, publish_batch
from teatree.messaging.bus import Bus
from teatree.messaging.last_requests import last_sequences
from teatree.messaging.log import LogReader, WakeHints, leaders_message_of, message_of
from teatree.messaging.notices import NoticeWriter, last_notice, read_notices
from teatree.messaging.streams import ensure_streams, log_config, log_state


@pytest.fixture
async def bus(nats_server: NatsSettings) -> AsyncIterator[Bus]:
    """Return a bus with both streams."""
    async with bus_with_streams(nats_server) as connected:
        yield connected


def _restart(server: NatsServer) -> None:
    while server.is_running():  # the kernel has not reaped it yet
        time.sleep(0.01)
    server.start()


class TestConnect:
    async def test_unreachable(self) -> None:
        """An unreachable server is reported at once, without the password."""
        with pytest.raises(RetryError) as e:
            await Bus.connect(NatsSettings(url="nats://me:secret@127.0.0.1:1"), name="t")
        assert e.value.code is Code.UNAVAILABLE
        assert "secret" not in str(e.value)
        assert "127.0.0.1:1" in str(e.value)

    async def test_wrong_password(self, nats_server: NatsSettings) -> None:
        """A refused password is an operator's error, at once."""
        with pytest.raises(OperatorError) as e:
            await Bus.connect(evolve(nats_server, user="me", password="wrong"), name="t", wait_ms=60_000)
        assert e.value.code is Code.NOT_AUTHORIZED
        assert "wrong" not in str(e.value).replace("wrong_", "")


class TestStreams:
    async def test_again(self, bus: Bus) -> None:
        """Existing streams are left as they are, whatever sizes their operator chose."""
        before = await log_state(bus)
        await ensure_streams(bus, log_bytes_max=99_000_000, notices_age_s=7, notices_max=8)
        after = await log_state(bus)
        assert evolve(after, now=before.now) == before
        assert after.size_bytes_max == 50_000_000

    async def test_wrong(self, bus: Bus) -> None:
        """A stream that would lose requests is refused with the wrong settings."""
        name = bus.subjects.requests_stream
        await bus.js(f"STREAM.DELETE.{name}")
        await bus.js(
            f"STREAM.CREATE.{name}",
            {"name": name, "subjects": [bus.subjects.requests_all], "max_age": 10**12, "storage": "memory"},
        )
        with pytest.raises(OperatorError) as e:
            await ensure_streams(bus, log_bytes_max=1_000_000, notices_age_s=7, notices_max=8)
        assert e.value.code is Code.WRONG_CONFIGURATION
        for part in (name, "storage is 'memory', not 'file'", "max_age", "allow_atomic", "discard is 'old', not 'new'"):
            assert part in str(e.value)

    @pytest.mark.parametrize(
        "member",
        [
            {"allow_msg_ttl": True},
            {"sources": [{"name": "OTHER"}]},
            {"subject_transform": {"src": "*.request.*.*", "dest": "{{wildcard(1)}}.request.x.{{wildcard(3)}}"}},
            {"subject_transform": None},
            {"republish": {"src": "*.request.*.*.*", "dest": "{{wildcard(1)}}.wake.{{wildcard(2)}}"}},
            {"no_ack": True},
            {"deny_purge": True},
            {"max_msg_size": 1_000},
            {"first_seq": 1_000},
            {"allow_rollup_hdrs": True},
            {"subject_delete_marker_ttl": 2_000_000_000},
            {"duplicate_window": 120_000_000_000},
            {"max_msgs_per_subject": 5},
            {"allow_batched": True},
        ],
        ids=lambda member: next(iter(member)),
    )
    async def test_unexpected_member(self, bus: Bus, member: dict[str, Any]) -> None:
        """A stream with a setting that drops, rewrites or adds messages is refused with the name of the setting."""
        name = bus.subjects.requests_stream
        await bus.js(f"STREAM.DELETE.{name}")
        await bus.js(f"STREAM.CREATE.{name}", {**log_config(bus, 1_000_000), **member})
        with pytest.raises(OperatorError) as e:
            await ensure_streams(bus, log_bytes_max=1_000_000, notices_age_s=7, notices_max=8)
        assert e.value.code is Code.WRONG_CONFIGURATION
        assert next(iter(member)) in str(e.value)

    async def test_operators_choice(self, bus: Bus) -> None:
        """An operator may choose copies, placement, compression, descriptions and sizes."""
        name = bus.subjects.requests_stream
        await bus.js(f"STREAM.DELETE.{name}")
        chosen = {
            "description": "ours", "metadata": {"team": "a"}, "compression": "s2", "max_consumers": 3,
            "consumer_limits": {"max_ack_pending": 5}, "deny_delete": True, "max_msgs": 10**6,
        }  # fmt: skip
        await bus.js(f"STREAM.CREATE.{name}", {**log_config(bus, 1_000_000), **chosen})
        await ensure_streams(bus, log_bytes_max=1_000_000, notices_age_s=7, notices_max=8)

    async def test_notices_that_are_kept(self, bus: Bus) -> None:
        """Their stream keeps all but those of live queries, also one that kept everything before."""
        name = bus.subjects.notices_stream
        config = (await bus.js(f"STREAM.INFO.{name}"))["config"]
        await bus.js(f"STREAM.UPDATE.{name}", {**config, "subjects": [bus.subjects.notices_all]})
        await ensure_streams(bus, log_bytes_max=1_000_000, notices_age_s=7, notices_max=8)
        assert (await bus.js(f"STREAM.INFO.{name}"))["config"] == config
        subjects = bus.subjects
        kept = [
            *(subjects.notify("m", "watch", kind) for kind in ("started", "progress", "page", *TERMINAL_KINDS)),
            subjects.notify_group("m", "watch"),
            subjects.notify_version("m"),
        ]
        watched = [subjects.notify_watch("m", "renew"), subjects.notify_watch("m", "0f" * 16)]
        for subject in (*kept, *watched):
            await bus.publish(subject, b"{}")
        await bus.flush()
        assert [m.subject for m in await read_notices(bus, subjects.notices_all)] == kept
        assert [subject for subject in (*kept, *watched) if subjects.is_of_watch(subject)] == watched

    async def test_at_the_same_time(self, nats_server: NatsSettings) -> None:
        """Several processes may start on a fresh server together."""
        buses = [await Bus.connect(nats_server, name="t") for _ in range(4)]
        await asyncio.gather(*(ensure_streams(b, log_bytes_max=10**6 * (i + 1), notices_age_s=60, notices_max=9)
                               for i, b in enumerate(buses)))  # fmt: skip
        for b in buses:
            await b.close()


class TestSending:
    async def test_receipt(self, bus: Bus) -> None:
        """A receipt names the place in the log."""
        ack = await bus.publish_log(bus.subjects.request("sales", "append"), b"{}", {})
        assert (ack.stream, ack.seq, ack.duplicate) == (bus.subjects.requests_stream, 1, False)

    async def test_too_large(self, bus: Bus) -> None:
        """A body beyond the server's limit is refused before it is sent."""
        with pytest.raises(RequestError) as e:
            await bus.publish_log(bus.subjects.request("sales", "append"), b"x" * (bus.payload_bytes_max() + 1))
        assert e.value.code is Code.BODY_TOO_LARGE
        assert (await log_state(bus)).messages == 0
        await send(bus, "sales")  # the connection survived it

    async def test_full(self, bus: Bus) -> None:
        """A full log refuses what is new and keeps what it has."""
        name = bus.subjects.requests_stream
        config = (await bus.js(f"STREAM.INFO.{name}"))["config"]
        await bus.js(f"STREAM.UPDATE.{name}", {**config, "max_bytes": 10_000})
        with pytest.raises(RetryError) as e:
            await send(bus, "sales", 100, b"x" * 1000)
        assert e.value.code is Code.LOG_FULL
        assert (await log_state(bus)).first_seq == 1
        with pytest.raises(RetryError) as e:
            await publish_batch(bus, [(bus.subjects.request("sales", "append"), b"x" * 1000, {})] * 50)
        assert e.value.code is Code.LOG_FULL

    async def test_no_stream(self, bus: Bus) -> None:
        """Where no stream listens, nothing is accepted, at once."""
        for wrong in (
            bus.publish_log("nowhere.request.a.b", b""),
            publish_batch(bus, [("nowhere.request.a.b", b"", {})] * 3),
        ):
            with pytest.raises(RetryError) as e:
                await wrong
            assert e.value.code is Code.UNAVAILABLE

    async def test_ids_are_per_model(self, bus: Bus) -> None:
        """The same `Nats-Msg-Id` for two models, a moment apart, is two requests."""
        await bus.publish_log(bus.subjects.request("a", "append"), b"{}", {"Nats-Msg-Id": "1"})
        await asyncio.sleep(0.25)
        ack = await bus.publish_log(bus.subjects.request("b", "append"), b"{}", {"Nats-Msg-Id": "1"})
        assert not ack.duplicate


class TestReading:
    async def test_one_model_in_order(self, bus: Bus) -> None:
        """A reader sees its model's requests, all of them, in the order of the log."""
        for i in range(30):
            await send(bus, ("sales", "stock")[i % 2], 1, b'{"n": %d}' % i)
        reader = LogReader(bus, "sales")
        first = await reader.read(0, requests_max=10, bytes_max=10**6)
        rest = await reader.read(first.requests[-1].seq, requests_max=100, bytes_max=10**6)
        assert (len(first.requests), first.pending, len(rest.requests), rest.pending) == (10, 5, 5, 0)
        requests = first.requests + rest.requests
        assert [r.seq for r in requests] == list(range(1, 31, 2))
        assert [r.body for r in requests] == [b'{"n": %d}' % i for i in range(0, 30, 2)]
        assert {(r.model, r.function, r.request_id) for r in requests} == {("sales", "append", "r0")}
        assert all(r.invalid is None and r.at.tzinfo for r in requests)
        assert (await reader.read(30, requests_max=10, bytes_max=10**6)).requests == []
        assert (await LogReader(bus, "none").read(0, requests_max=10, bytes_max=10**6)).requests == []

    async def test_bytes_limit(self, bus: Bus) -> None:
        """A read is bounded in bytes, and still makes progress with a body beyond the limit."""
        await send(bus, "sales", 5, b"x" * 100_000)
        got = await LogReader(bus, "sales").read(0, requests_max=100, bytes_max=250_000)
        assert 1 <= len(got.requests) < 5
        assert got.pending == 5 - len(got.requests)
        got = await LogReader(bus, "sales").read(0, requests_max=100, bytes_max=10)
        assert len(got.requests) == 1

    async def test_after_purge(self, bus: Bus) -> None:
        """Purged requests are skipped; the others are read without a gap."""
        await send(bus, "sales", 10)
        name = bus.subjects.requests_stream
        await bus.js(f"STREAM.PURGE.{name}", {"filter": bus.subjects.request_filter("sales"), "seq": 5})
        got = await LogReader(bus, "sales").read(0, requests_max=100, bytes_max=10**6)
        assert [r.seq for r in got.requests] == [5, 6, 7, 8, 9, 10]

    async def test_by_number(self, bus: Bus) -> None:
        """The leader and any replica return the same of a message: its model and its time, or none."""
        await send(bus, "sales", 3)
        await send(bus, "stock")
        await bus.js(f"STREAM.MSG.DELETE.{bus.subjects.requests_stream}", {"seq": 2})
        found = [await message_of(bus, seq) for seq in range(1, 6)]
        assert [f and (f[0], f[1].seq) for f in found] == [("sales", 1), None, ("sales", 3), ("stock", 4), None]
        assert [await leaders_message_of(bus, seq) for seq in range(1, 6)] == found

    async def test_forged_headers(self, bus: Bus) -> None:
        """A sender's headers cannot imitate the server's end of a read, or another place in the log."""
        subject = bus.subjects.request("sales", "append")
        await bus.publish_log(subject, b"1", {"Nats-Sequence": "77", "Nats-Subject": "x.y", "Nats-Last-Sequence": "9"})
        block = b"NATS/1.0 204 EOB\r\nNats-Num-Pending: 0\r\nNats-Last-Sequence: 1\r\n\r\n"
        await bus.send([b"HPUB %b %d %d\r\n%b\r\n" % (subject.encode(), len(block), len(block), block)])
        await send(bus, "sales")
        got = await LogReader(bus, "sales").read(0, requests_max=100, bytes_max=10**6)
        assert [r.seq for r in got.requests] == [1, 2, 3]
        assert got.requests[0].function == "append"

    @pytest.mark.parametrize(
        "block",
        [
            b"NATS/1.0\r\nTeatree-Request-Id: a\n\r\n",
            b"NATS/1.0\r\nTeatree-Request-Id: a\n",
            b"NATS/1.0\r\nTeatree-Request-Id: a",
            b"NATS/1.0\r\nTeatree-Request-Id:\r\n a\r\n\r\n",
            b"NATS/1.0\r\nTeatree-Request-Id: \r\nNats-Msg-Id: a\r\n\r\n",
            b"NATS/1.0\r\nA: b\r\n\r\nTeatree-Request-Id: \r\n",
        ],
    )
    async def test_headers_that_do_not_end(self, bus: Bus, block: bytes) -> None:
        """Headers without line ends, folded or empty stop no reader of the log; their request is rejected."""
        await bus.send((bus.frame(bus.subjects.request("m", "append"), b"{}", block),))
        await bus.flush()
        assert await last_sequences(bus, ["m"]) == {"m": 1}
        await send(bus, "m")
        requests = (await LogReader(bus, "m").read(0, requests_max=9, bytes_max=10**6)).requests
        assert [(r.request_id, r.invalid is not None) for r in requests] == [("seq-1", True), ("r0", False)]

    async def test_bad_envelopes(self, bus: Bus) -> None:
        """A request with a bad name or id is read, with its error."""
        await bus.publish_log(f"{bus.prefix}.request.Bad-Model.append", b"{}", {})
        await bus.publish_log(f"{bus.prefix}.request.sales.append", b"{}", {"Teatree-Request-Id": "a b"})
        bad = (await LogReader(bus, "Bad-Model").read(0, requests_max=10, bytes_max=10**6)).requests[0]
        assert bad.invalid is not None
        assert bad.invalid.code is Code.BAD_NAME
        assert bad.request_id == "seq-1"
        bad = (await LogReader(bus, "sales").read(0, requests_max=10, bytes_max=10**6)).requests[0]
        assert bad.invalid is not None
        assert bad.invalid.code is Code.BAD_REQUEST_ID

    async def test_hints(self, bus: Bus) -> None:
        """A new request is hinted at without its body."""
        all_models, one = await WakeHints.open(bus), await WakeHints.open(bus, "sales")
        await send(bus, "stock", 2, b"x" * 1000)
        await send(bus, "sales")
        assert await SYSTEM_CLOCK.wait_async(one.event, 5)
        assert await SYSTEM_CLOCK.wait_async(all_models.event, 5)
        assert all_models.take() == ({"stock", "sales"}, False)
        assert one.take() == ({"sales"}, False)
        assert not await SYSTEM_CLOCK.wait_async(one.event, 0.02)
        await all_models.close()
        await one.close()


class TestBatches:
    async def test_order(self, bus: Bus) -> None:
        """Batches that travel together are accepted in the order in which they were given."""
        subject = bus.subjects.request("sales", "append")
        publisher = BatchPublisher(bus, in_flight_max=4)
        sizes = [1, 1000, 7, 1, 300, 2]
        tasks = [
            await publisher.put([(subject, b"%d" % batch, {"Teatree-Request-Id": f"{batch}-{i}"}) for i in range(size)])
            for batch, size in enumerate(sizes)
        ]
        await publisher.drain()
        acks = [await task for task in tasks]
        assert [ack.count for ack in acks] == sizes
        assert [ack.last_seq for ack in acks] == [sum(sizes[: i + 1]) for i in range(len(sizes))]
        got = await LogReader(bus, "sales").read(0, requests_max=2000, bytes_max=10**7)
        assert [r.request_id for r in got.requests] == [f"{b}-{i}" for b, size in enumerate(sizes) for i in range(size)]

    @pytest.mark.parametrize("size", [0, 1001])
    async def test_size(self, bus: Bus, size: int) -> None:
        """A batch that the server would not take is refused before it is sent."""
        with pytest.raises(RequestError):
            await publish_batch(bus, [(bus.subjects.request("sales", "append"), b"", {})] * size)

    async def test_all_or_none(self, bus: Bus) -> None:
        """A batch with one message that cannot be sent is not accepted at all, nor is any after it."""
        subject = bus.subjects.request("sales", "append")
        publisher = BatchPublisher(bus)
        good = await publisher.put([(subject, b"1", {})] * 2)
        bad = await publisher.put([(subject, b"2", {}), (subject, b"x" * (bus.payload_bytes_max() + 1), {})])
        later = await publisher.put([(subject, b"3", {})] * 2)
        assert (await good).last_seq == 2
        for task in (bad, later):
            with pytest.raises((RequestError, RetryError)) as e:
                await task
            assert e.value.code is Code.BODY_TOO_LARGE
        assert (await log_state(bus)).last_seq == 2

    async def test_too_many_open(self, bus: Bus) -> None:
        """When the server has too many open batches, ours waits for its turn, up to its time limit."""
        subject = bus.subjects.request("sales", "append")
        opened = [bus.frame(subject, b"", {"Nats-Batch-Id": f"open{i}", "Nats-Batch-Sequence": "1"}) for i in range(50)]
        await bus.send(opened)
        with pytest.raises(RetryError) as e:
            await publish_batch(bus, [(subject, b"", {})] * 2, timeout_ms=3_000)
        assert e.value.code is Code.BUSY
        waiting = asyncio.create_task(publish_batch(bus, [(subject, b"", {})] * 2))
        await asyncio.sleep(0.2)
        commit = {"Nats-Batch-Id": "open0", "Nats-Batch-Sequence": "2", "Nats-Batch-Commit": "1"}
        await bus.send([bus.frame(subject, b"", commit)])
        assert await waiting == 4


class TestNotices:
    async def test_published(self, bus: Bus) -> None:
        """Published notices are stored and can be read later, all of a request or the newest."""
        notify = bus.subjects.notify
        messages: list[NoticeMessage] = [(notify("sales", f"id{i}", "done"), b"%d" % i, {}) for i in range(3_000)]
        await NoticeWriter(bus, in_flight_max=500).publish(messages)
        await NoticeWriter(bus).publish([(notify("sales", "id7", kind), kind.encode(), {"A": "b"}) for kind in
                                     ("started", "page", "page")])  # fmt: skip
        newest = await last_notice(bus, bus.subjects.notify_request("sales", "id7"))
        assert newest is not None
        assert (newest.body, newest.headers) == (b"page", {"A": "b"})
        done = await last_notice(bus, notify("sales", "id7", "done"))
        assert done is not None
        assert done.body == b"7"
        assert await last_notice(bus, notify("sales", "unknown", "done")) is None
        assert [m.body for m in await read_notices(bus, bus.subjects.notify_request("sales", "id7"))] == [
            b"7", b"started", b"page", b"page",
        ]  # fmt: skip
        state = (await bus.js(f"STREAM.INFO.{bus.subjects.notices_stream}"))["state"]
        assert state["messages"] == 3_003

    async def test_no_stream(self, bus: Bus) -> None:
        """Without their stream notices are not lost in silence."""
        await bus.js(f"STREAM.DELETE.{bus.subjects.notices_stream}")
        with pytest.raises(RetryError) as e:
            await NoticeWriter(bus).publish([(bus.subjects.notify("sales", "a", "done"), b"", {})])
        assert e.value.code is Code.UNAVAILABLE
        await ensure_streams(bus, log_bytes_max=1, notices_age_s=60, notices_max=9)


class TestOutage:
    async def test_server_killed(self, bus: Bus, servers: TestServers) -> None:
        """Over a kill of the server open requests fail at once, nothing accepted is lost, and the bus reconnects."""
        last = await send(bus, "sales", 20)
        sub = await bus.subscribe("some.subject")
        hints = await WakeHints.open(bus)
        silent = await bus.subscribe("never.answered")
        asked = asyncio.create_task(bus.request("never.answered", timeout_ms=60_000))
        await silent.next(5_000)
        server = servers.nats()
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        with pytest.raises(RetryError) as e:
            await asked
        assert e.value.code is Code.UNAVAILABLE
        with pytest.raises(RetryError):
            await bus.publish("some.subject", b"")
        await asyncio.to_thread(_restart, server)
        await bus.wait_connected(20_000)
        assert await last_sequences(bus, ["sales"]) == {"sales": last}
        with pytest.raises(RetryError) as e:
            await sub.next(5_000)
        assert e.value.code is Code.UNAVAILABLE
        assert hints.take()[1]
        await bus.publish("some.subject", b"on")
        assert (await sub.next(5_000)).body == b"on"
        await NoticeWriter(bus).publish([(bus.subjects.notify("sales", "a", "done"), b"", {})])

    async def test_cut_while_reading(self, bus: Bus) -> None:
        """A connection cut in the middle of a read gives an error or all of it, never a part."""
        subject = bus.subjects.request("sales", "append")
        await publish_batch(bus, [(subject, b"x" * 5_000, {})] * 1_000)
        reader = LogReader(bus, "sales")
        for delay_ms in (0, 1, 3, 6):
            reading = asyncio.create_task(reader.read(0, requests_max=1_000, bytes_max=10**8))
            await asyncio.sleep(delay_ms / 1000)
            transport = bus._client._transport._io_writer.transport  # type: ignore[union-attr]
            transport.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
            result = (await asyncio.gather(reading, return_exceptions=True))[0]
            assert isinstance(result, RetryError) or len(result.requests) == 1_000  # type: ignore[union-attr]
            await asyncio.sleep(0.05)
            await bus.wait_connected(20_000)
        assert len((await reader.read(0, requests_max=1_000, bytes_max=10**8)).requests) == 1_000
        assert bus.losses >= 1


class TestSubscriptions:
    async def test_slow_reader(self, bus: Bus) -> None:
        """A reader that is too slow gets an error about the missed messages, and can read further ones."""
        sub = await bus.subscribe("a.b", pending_max=10)
        for i in range(30):
            await bus.publish("a.b", b"%d" % i)
        await bus.flush()
        assert [(await sub.next(1_000)).body for _ in range(10)] == [b"%d" % i for i in range(10)]
        with pytest.raises(RetryError) as e:
            await sub.next(1_000)
        assert e.value.code is Code.OVER_LIMIT
        assert sub.dropped == 20
        await bus.publish("a.b", b"on")
        assert (await sub.next(1_000)).body == b"on"
        await sub.close()
        assert [m async for m in sub] == []
