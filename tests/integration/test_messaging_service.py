"""Direct reads by NATS' service convention, against a real server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping

import pytest

from teatree.contracts.errors import Code, RequestError, RetryError
from teatree.contracts.read_settings import ReadSettings
from teatree.contracts.settings import NatsSettings
from teatree.messaging.asked_reads import AskedRead
from teatree.messaging.bus import Bus
from teatree.messaging.service import serve


@pytest.fixture
async def bus(nats_server: NatsSettings) -> AsyncIterator[Bus]:
    """Return a connected bus."""
    connected = await Bus.connect(nats_server, name="test")
    yield connected
    await connected.close()


READS = ReadSettings()
REPEATED = {"Teatree-Request-Id": "one", "Teatree-Repeat-Ms": "100"}


async def answer(read: AskedRead) -> tuple[bytes, Mapping[str, str]]:
    """Echo, or fail in the way that the function's name selects."""
    match read.function:
        case "wrong":
            raise RequestError(Code.UNKNOWN_TABLE, "There is no table 'x'.\r\nReally.", where="sql")
        case "broken":
            raise ValueError("a bug")
        case "large":
            return b"x" * 10_000_000, {}
        case "slow":
            await asyncio.sleep(0.3)
    return read.function.encode() + b":" + read.body, {"Reply-Header": read.headers.get("Request-Header", "")}


async def test_answers(bus: Bus) -> None:
    """A read is answered with body and headers of the handler."""
    async with await serve(bus, "sales", answer, READS, version="1.0.0"):
        reply = await bus.request(bus.subjects.query("sales", "query"), b"hi", {"Request-Header": "q"})
        assert (reply.body, reply.headers) == (b"query:hi", {"Reply-Header": "q"})
    with pytest.raises(RetryError) as e:
        await bus.request(bus.subjects.query("sales", "query"), b"hi")
    assert e.value.code is Code.UNAVAILABLE


@pytest.mark.parametrize(
    ("function", "number", "code"),
    [("wrong", "404", "unknown_table"), ("broken", "500", "internal"), ("large", "400", "result_too_large")],
)
async def test_errors(bus: Bus, function: str, number: str, code: str) -> None:
    """A read that fails gets its error, in the convention's headers and in Teatree's body; others are not affected."""
    async with await serve(bus, "sales", answer, READS, version="1.0.0"):
        reply = await bus.request(bus.subjects.query("sales", function))
        assert reply.headers["Nats-Service-Error-Code"] == number
        assert code in reply.headers["Nats-Service-Error"]
        assert json.loads(reply.body)["error"]["code"] == code
        assert (await bus.request(bus.subjects.query("sales", "query"))).body == b"query:"


@pytest.mark.parametrize("reply", [b"\xff.x", b"a\x01b", "a\u2028b".encode()])
async def test_invalid_reply_subjects(bus: Bus, reply: bytes) -> None:
    """A read whose reply subject is no text gets no reply; the connection and other reads are not affected."""
    subject = bus.subjects.query("sales", "query")
    missed = await bus.subscribe(subject)
    async with await serve(bus, "sales", answer, READS, version="1.0.0"):
        await bus.send((b"PUB %b %b 2\r\nhi\r\n" % (subject.encode(), reply),))
        assert (await bus.request(subject, b"hi", timeout_ms=2_000)).body == b"query:hi"
    assert (await missed.next(1_000)).body == b"hi"


async def test_limit(bus: Bus) -> None:
    """Beyond the limit of reads that run or wait one is refused at once; the others are answered."""
    async with await serve(bus, "sales", answer, ReadSettings(waiting_max=2), version="1.0.0"):
        asked = [bus.request(bus.subjects.query("sales", "slow")) for _ in range(3)]
        replies = await asyncio.gather(*asked)
        assert sorted(r.headers.get("Nats-Service-Error-Code", "") for r in replies) == ["", "", "503"]


class Counting:
    """A handler that counts the reads that it begins, and returns when an event is set."""

    def __init__(self) -> None:
        self.begun = 0
        self.cancelled = asyncio.Event()
        self.may_answer = asyncio.Event()

    async def __call__(self, _: AskedRead) -> tuple[bytes, Mapping[str, str]]:
        self.begun += 1
        try:
            await self.may_answer.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return b"answered", {}


async def test_a_repeat_runs_nothing_twice(bus: Bus) -> None:
    """A read that is repeated while it runs runs once, and the newest copy gets the reply."""
    subject = bus.subjects.query("sales", "query")
    counting = Counting()
    async with await serve(bus, "sales", counting, READS, version="1.0.0"):
        with pytest.raises(RetryError):
            await bus.request(subject, b"hi", REPEATED, timeout_ms=50)
        repeat = asyncio.create_task(bus.request(subject, b"hi", REPEATED))
        other = asyncio.create_task(bus.request(subject, b"other", REPEATED | {"Teatree-Request-Id": "two"}))
        await asyncio.sleep(0.05)
        counting.may_answer.set()
        assert (await repeat).body == (await other).body == b"answered"
        assert counting.begun == 2


async def test_a_read_that_its_client_gives_up_is_cancelled(bus: Bus) -> None:
    """Either by the client's `cancel`, or because its repeats have stopped."""
    subject = bus.subjects.query("sales", "query")
    for sends_cancel in (True, False):
        counting = Counting()
        async with await serve(bus, "sales", counting, ReadSettings(silent_ms_min=0), version="1.0.0"):
            with pytest.raises(RetryError):
                await bus.request(subject, b"hi", REPEATED, timeout_ms=50)
            if sends_cancel:
                with pytest.raises(RetryError):
                    await bus.request(bus.subjects.query("sales", "cancel"), b"", REPEATED, timeout_ms=50)
            async with asyncio.timeout(10):
                await counting.cancelled.wait()


async def test_running_reads_finish(bus: Bus) -> None:
    """A service that is closed still replies to the reads that it has begun."""
    service = await serve(bus, "sales", answer, READS, version="1.0.0")
    asked = asyncio.create_task(bus.request(bus.subjects.query("sales", "slow")))
    await asyncio.sleep(0.1)
    await service.close()
    assert (await asked).body == b"slow:"


async def test_found_by_the_convention(bus: Bus) -> None:
    """The `nats` tool's PING, INFO and STATS requests get replies."""
    name = f"{bus.prefix}-query-sales"
    async with await serve(bus, "sales", answer, READS, version="1.2.3"):
        await bus.request(bus.subjects.query("sales", "query"))
        await bus.request(bus.subjects.query("sales", "wrong"))
        ping = json.loads((await bus.request(f"$SRV.PING.{name}")).body)
        info = json.loads((await bus.request(f"$SRV.INFO.{name}.{ping['id']}")).body)
        stats = json.loads((await bus.request(f"$SRV.STATS.{name}")).body)
    assert (ping["type"], ping["name"], ping["version"]) == ("io.nats.micro.v1.ping_response", name, "1.2.3")
    assert info["endpoints"][0]["subject"] == bus.subjects.query_model("sales")
    assert (stats["endpoints"][0]["num_requests"], stats["endpoints"][0]["num_errors"]) == (2, 1)
