"""Senders in the log: both forms of a request's subject, and the last request of each model, on a real NATS."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import nats
import pytest

from log_bus import bus_with_streams, send
from teatree.contracts.clock import SYSTEM_CLOCK
from teatree.contracts.errors import Code, OperatorError, RetryError
from teatree.contracts.settings import NatsSettings
from teatree.messaging.batches import LogMessage, publish_batch
from teatree.messaging.bus import Bus
from teatree.messaging.last_requests import LastRequests, last_requests, last_requests_of, last_sequences
from teatree.messaging.log import LogReader, WakeHints
from teatree.messaging.log_check import Advance, read_advance
from teatree.messaging.streams import ensure_streams, log_config, log_state
from teatree.messaging.subject_reader import subjects_after
from teatree.messaging.subjects import ADVANCED


@pytest.fixture
async def bus(nats_server: NatsSettings) -> AsyncIterator[Bus]:
    """Return a bus with both streams."""
    async with bus_with_streams(nats_server) as connected:
        yield connected


class TestSenders:
    async def test_both_forms(self, bus: Bus, nats_server: NatsSettings) -> None:
        """A plain publish without a sender lies in the log under `_`; one with a sender keeps it; both in one order."""
        assert nats_server.url
        plain = await nats.connect(nats_server.url, user=nats_server.user, password=nats_server.password)
        subject = f"{bus.prefix}.request.sales.append"
        for place, last in enumerate((subject, f"{subject}.anna", subject, f"{subject}._", f"{subject}.Anna")):
            receipt = json.loads((await plain.request(last, b"{}", 5)).data)
            assert (receipt["stream"], receipt["seq"]) == (bus.subjects.requests_stream, place + 1)
        await plain.publish(subject, b"{}")
        await plain.close()
        await send(bus, "sales")
        requests = (await LogReader(bus, "sales").read(0, requests_max=9, bytes_max=10**6)).requests
        assert [r.seq for r in requests] == [1, 2, 3, 4, 5, 6, 7]
        assert [r.sender for r in requests] == ["_", "anna", "_", "_", "_", "_", "_"]
        assert {r.function for r in requests} == {"append"}
        assert [r.invalid and (r.invalid.code, r.invalid.where) for r in requests] == [
            None, None, None, None, (Code.BAD_NAME, "sender"), None, None,
        ]  # fmt: skip

    async def test_atomic_batch_of_both_forms(self, bus: Bus) -> None:
        """A batch keeps its order whatever the forms of its subjects."""
        short = f"{bus.prefix}.request.sales.append"
        batch: list[LogMessage] = [(short, b"1", {}), (f"{short}.anna", b"2", {}), (short, b"3", {})]
        assert await publish_batch(bus, batch) == 3
        requests = (await LogReader(bus, "sales").read(0, requests_max=9, bytes_max=10**6)).requests
        assert [(r.sender, r.body) for r in requests] == [("_", b"1"), ("anna", b"2"), ("_", b"3")]

    async def test_edited_stream(self, bus: Bus) -> None:
        """A stream from before senders is refused, and can be edited as the error asks: no request in it is lost."""
        stream = bus.subjects.requests_stream
        await bus.js(f"STREAM.DELETE.{stream}")
        short = bus.subjects.requests_without_sender
        former = log_config(bus, 1_000_000) | {"subjects": [short], "subject_transform": None}
        former["republish"] = {**former["republish"], "src": short}
        await bus.js(f"STREAM.CREATE.{stream}", former)
        await bus.publish_log(f"{bus.prefix}.request.sales.append", b"1")
        with pytest.raises(OperatorError) as wrong:
            await ensure_streams(bus, log_bytes_max=1_000_000, notices_age_s=7, notices_max=8)
        for member in ("subjects", "subject_transform", "republish"):
            assert member in wrong.value.message
        await bus.js(f"STREAM.UPDATE.{stream}", log_config(bus, 1_000_000))
        await ensure_streams(bus, log_bytes_max=1_000_000, notices_age_s=7, notices_max=8)
        await bus.publish_log(f"{bus.prefix}.request.sales.append", b"2")
        requests = (await LogReader(bus, "sales").read(0, requests_max=9, bytes_max=10**6)).requests
        assert [(r.function, r.sender, r.body) for r in requests] == [("append", "_", b"1"), ("append", "_", b"2")]
        assert (await last_requests(bus, await log_state(bus), ())).requests == {"sales": 2}

    async def test_hints_for_both_forms(self, bus: Bus) -> None:
        """Either form wakes the model's manager and the dispatcher, with headers only."""
        seen = await bus.subscribe(bus.subjects.wake("sales"))
        hints = await WakeHints.open(bus)
        for subject in (f"{bus.prefix}.request.sales.append", bus.subjects.request("sales", "append", "anna")):
            await bus.publish_log(subject, b"x" * 1000, {"Teatree-Request-Id": "r1"})
            hint = await seen.next(5_000)
            assert (hint.body, hint.headers["Teatree-Request-Id"]) == (b"", "r1")
            assert await SYSTEM_CLOCK.wait_async(hints.event, 5)
            assert hints.take() == ({"sales"}, False)
        await hints.close()

    @pytest.mark.parametrize("subject", ["sales", "sales.append.anna.b", "sales.append.anna.b.c"])
    async def test_other_forms(self, bus: Bus, subject: str) -> None:
        """A subject with fewer or more tokens is in no stream: its publisher learns that nothing was stored."""
        with pytest.raises(RetryError) as e:
            await bus.publish_log(f"{bus.prefix}.request.{subject}", b"{}")
        assert e.value.code is Code.UNAVAILABLE
        assert (await log_state(bus)).messages == 0

    async def test_no_mark_without_the_right(self, bus: Bus) -> None:
        """Who may publish only requests, under a name or without one, cannot leave a mark that resumes a model."""
        mark = Advance(1, datetime.now(UTC), 5, 1)
        for sender in ("", "._", ".anna"):
            await bus.publish_log(f"{bus.prefix}.request.{ADVANCED}.sales{sender}", mark.to_json())
        assert await read_advance(bus, "sales", mark.position) is None
        await bus.publish_log(bus.subjects.advanced("sales"), mark.to_json())
        assert await read_advance(bus, "sales", mark.position) == mark


async def every_way(bus: Bus, monkeypatch: pytest.MonkeyPatch, after: int = 0) -> LastRequests:
    """Return the last requests, after checking that each way of finding them finds the same."""
    state = await log_state(bus)
    found = await last_requests(bus, state, ["drop_model"], after=after)
    for subjects_max, subjects_a_page in ((0, 10**9), (0, 1)):  # by a list of all subjects, and by reading
        monkeypatch.setattr("teatree.messaging.last_requests.SUBJECTS_MAX", subjects_max)
        monkeypatch.setattr("teatree.messaging.last_requests.SUBJECTS_A_PAGE", subjects_a_page)
        other = await last_requests(bus, state, ["drop_model"], after=after)
        assert {m: n for m, n in other.requests.items() if n > after} == found.requests
        assert {m: n for m, n in other.of_functions.items() if n > after} == found.of_functions
        monkeypatch.undo()
    return found


class TestLastRequests:
    async def read(self, bus: Bus, after: int, up_to: int) -> list[list[int]]:
        """Return the sequences that a read brings, portion by portion."""
        portions = subjects_after(bus, bus.subjects.requests_stream, after, up_to)
        return [[seq for _, seq in portion] async for portion in portions]

    async def test_of_every_model(self, bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
        """The last request of each model, and its last `drop_model`, whatever their senders and however many."""
        assert await every_way(bus, monkeypatch) == LastRequests({}, {})
        await send(bus, "sales", 3)
        await bus.publish_log(bus.subjects.request("sales", "drop_model", "anna"), b"{}")
        await bus.publish_log(bus.subjects.padding, b"{}")
        await send(bus, "stock", 2)
        await bus.publish_log(bus.subjects.advanced("stock"), b"{}")
        assert await every_way(bus, monkeypatch) == LastRequests({"sales": 4, "stock": 7}, {"sales": 4})
        assert await every_way(bus, monkeypatch, 3) == LastRequests({"sales": 4, "stock": 7}, {"sales": 4})
        assert await every_way(bus, monkeypatch, 4) == LastRequests({"stock": 7}, {})
        assert await every_way(bus, monkeypatch, 8) == LastRequests({}, {})
        assert await last_sequences(bus, ["sales", "none"]) == {"sales": 4}
        assert await last_requests_of(bus, ["sales", "stock", "none"], ["drop_model"]) == LastRequests(
            {"sales": 4, "stock": 7}, {"sales": 4}
        )

    async def test_many_senders(self, bus: Bus) -> None:
        """More subjects than the server answers for at once: all models are found, and only those with news."""
        many: list[LogMessage] = [
            (bus.subjects.request(f"m{i}", "append", f"s{j}"), b"{}", {}) for i in range(50) for j in range(50)
        ]
        for i in range(0, len(many), 1000):
            await publish_batch(bus, many[i : i + 1000])
        state = await log_state(bus)
        assert state.subjects == 2_500
        assert (await last_requests(bus, state, ())).requests == {f"m{i}": 50 * (i + 1) for i in range(50)}
        assert (await last_requests(bus, state, (), after=2_449)).requests == {"m48": 2_450, "m49": 2_500}

    async def test_deleted_messages(self, bus: Bus) -> None:
        """Messages that were deleted, at the end too, are passed over."""
        await send(bus, "sales", 10)
        for seq in (1, 5, 10):
            await bus.js(f"STREAM.MSG.DELETE.{bus.subjects.requests_stream}", {"seq": seq})
        found = [
            seq async for portion in subjects_after(bus, bus.subjects.requests_stream, 0, 10) for _, seq in portion
        ]
        assert found == [2, 3, 4, 6, 7, 8, 9]
        assert [p async for p in subjects_after(bus, bus.subjects.requests_stream, 9, 10)] == []

    async def test_portions(self, bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
        """However small its portions, a read brings every message once, and leaves no consumer behind."""
        monkeypatch.setattr("teatree.messaging.subject_reader.SUBJECTS_AT_ONCE", 7)
        await publish_batch(bus, [(bus.subjects.request("sales", "append", f"s{i}"), b"x", {}) for i in range(50)])
        stream = bus.subjects.requests_stream
        for after, up_to in ((0, 50), (20, 50), (20, 30), (49, 99)):
            portions = [portion async for portion in subjects_after(bus, stream, after, up_to)]
            seqs = [seq for portion in portions for _, seq in portion]
            assert seqs[: up_to - after] == list(range(after + 1, min(up_to, 50) + 1))
            assert all(subject.endswith(f".s{seq - 1}") for portion in portions for subject, seq in portion)
        await bus.flush()
        assert (await bus.js(f"STREAM.INFO.{stream}"))["state"]["consumer_count"] == 0

    async def test_cut_while_reading(self, bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
        """A connection cut in the middle of a read gives an error, never a part that looks like all."""
        monkeypatch.setattr("teatree.messaging.subject_reader.SUBJECTS_AT_ONCE", 5)
        await publish_batch(bus, [(bus.subjects.request("sales", "append", f"s{i}"), b"x", {}) for i in range(50)])
        portions = subjects_after(bus, bus.subjects.requests_stream, 0, 50)
        await anext(portions)
        transport = bus._client._transport._io_writer.transport  # type: ignore[union-attr]
        transport.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
        with pytest.raises(RetryError):
            [portion async for portion in portions]
        await bus.wait_connected(20_000)
        assert [seq for portion in await self.read(bus, 0, 50) for seq in portion] == list(range(1, 51))
