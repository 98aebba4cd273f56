"""The wire protocol: subjects, headers, frames, JetStream's errors."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import pytest

from teatree.contracts.errors import Code, OperatorError, RequestError, RetryError
from teatree.contracts.formats.requests import HEADERS, read_request
from teatree.contracts.probe import NO_PROBE
from teatree.contracts.settings import NatsSettings
from teatree.messaging.bus import Bus
from teatree.messaging.frames import show_url
from teatree.messaging.headers import decode_headers, decode_status, encode_headers
from teatree.messaging.jetstream import api_error, read_ack
from teatree.messaging.nats_client import NatsClient
from teatree.messaging.streams import differences
from teatree.messaging.subjects import Subjects


class TestSubjects:
    def test_addresses(self) -> None:
        """Subjects have the form of DESIGN.md, section 4."""
        s = Subjects()
        assert s.request("sales", "append", "anna") == "teatree.request.sales.append.anna"
        assert s.request("sales", "append") == "teatree.request.sales.append._"
        assert s.request_filter("sales") == "teatree.request.sales.>"
        assert s.function_filter("sales", "append") == "teatree.request.sales.append.>"
        assert s.requests_all == "teatree.request.>"
        assert s.requests_by_sender == "teatree.request.*.*.*"
        assert s.requests_without_sender == "teatree.request.*.*"
        assert s.wake("sales") == "teatree.wake.sales"
        assert s.notify("sales", "abc-1", "done") == "teatree.notify.sales.abc-1.done"
        assert s.notify_request("sales", "abc-1") == "teatree.notify.sales.abc-1.*"
        assert s.notify_version("sales") == "teatree.notify.sales.version"
        assert s.notify_group("sales", "g1") == "teatree.notify.sales.group.g1.done"
        assert s.notify_model("sales") == "teatree.notify.sales.>"
        assert s.query("sales", "query") == "teatree.query.sales.query"
        assert s.query_model("sales") == "teatree.query.sales.*"
        assert s.parse_request("teatree.request.sales.append.anna") == ("sales", "append", "anna")
        assert s.parse_request("teatree.request.sales.append") == ("sales", "append", "_")
        assert s.parse_query("teatree.query.sales.q") == ("sales", "q")

    def test_streams_of_installations_differ(self) -> None:
        """Several installations on one NATS have different streams."""
        assert (Subjects().requests_stream, Subjects().notices_stream) == ("REQUESTS", "NOTICES")
        assert (Subjects("plan-b").requests_stream, Subjects("plan-b").notices_stream) == (
            "REQUESTS_plan-b",
            "NOTICES_plan-b",
        )

    @pytest.mark.parametrize("prefix", ["", "a.b", "A", "a b", "$JS", "a*", ">", "_INBOX", "a" * 33])
    def test_bad_prefix(self, prefix: str) -> None:
        """A prefix that would reach beyond its installation is refused."""
        with pytest.raises(OperatorError) as e:
            Subjects(prefix)
        assert e.value.code is Code.WRONG_CONFIGURATION

    @pytest.mark.parametrize("name", ["..", "*", ">", "a.b", "", "Sales", "a b", "a\r\nPUB x 0\r\n"])
    def test_bad_names(self, name: str) -> None:
        """An invalid name never becomes part of a subject."""
        for model, function, sender in ((name, "append", "_"), ("sales", name, "_"), ("sales", "append", name)):
            with pytest.raises(RequestError) as e:
                Subjects().request(model, function, sender)
            assert e.value.code is Code.BAD_NAME
        if name != "Sales":  # invalid, but a token: requests under it can be answered
            with pytest.raises(RequestError):
                Subjects().notify(name, "id", "done")

    @pytest.mark.parametrize(
        "subject",
        [
            "teatree.request.sales",
            "teatree.request.a.b.c.d",
            "other.request.a.b.c",
            "teatree.query.a.b.c",
            "",
        ],
    )
    def test_not_a_request(self, subject: str) -> None:
        """Only a request's subject is read as one."""
        with pytest.raises(RequestError):
            Subjects().parse_request(subject)


class TestHeaders:
    def test_both_ways(self) -> None:
        """Decoding returns what was encoded."""
        headers = {"Teatree-Request-Id": "a", "Teatree-Args": '{"ü": "a: b"}', "Empty": ""}
        assert decode_headers(encode_headers(headers)) == headers

    @pytest.mark.parametrize("value", ["a\r\nNats-Batch-Id: x", "a\n", " a", "a ", "\0"])
    def test_changed_values(self, value: str) -> None:
        """A value that would arrive changed, or as another header, is refused."""
        with pytest.raises(RequestError) as e:
            encode_headers({"Teatree-Args": value})
        assert e.value.code is Code.BAD_HEADER

    def test_too_long(self) -> None:
        """More than the server stores is refused before it is sent."""
        with pytest.raises(RequestError) as e:
            encode_headers({"A": "x" * 70_000})
        assert e.value.code is Code.BAD_HEADER

    def test_last_value_wins(self) -> None:
        """A sender cannot replace headers that the server appends."""
        assert decode_headers(b"NATS/1.0\r\nNats-Sequence: 1\r\nNats-Sequence: 7\r\n\r\n") == {"Nats-Sequence": "7"}

    @pytest.mark.parametrize("header", HEADERS)
    def test_any_case(self, header: str) -> None:
        """A request's header is found in any case: an id that was overlooked would take effect twice."""
        for name in (header.lower(), header.upper(), header.title(), header.swapcase(), f"{header} "):
            assert decode_headers(b"NATS/1.0\r\n%b: a\r\n\r\n" % name.encode()) == {header: "a"}

    @pytest.mark.parametrize("header", HEADERS)
    def test_repeated(self, header: str) -> None:
        """A request with one of its headers twice is rejected, in any case and also with the same value."""
        for second in (header, header.lower(), header.upper()):
            for value in ("application/json", "b"):
                block = f"NATS/1.0\r\n{header}: application/json\r\n{second}: {value}\r\n\r\n".encode()
                request = read_request("sales", "append", 7, datetime.now(UTC), decode_headers(block), b"{}")
                assert request.invalid is not None
                assert (request.invalid.code, request.invalid.where) == (Code.BAD_HEADER, header)
                assert request.request_id == "seq-7"
                assert request.group is request.args is request.traceparent is None

    def test_status(self) -> None:
        """An inline status is read, a plain header block has none."""
        assert decode_status(b"NATS/1.0 404 No Messages\r\n\r\n") == 404
        assert decode_status(b"NATS/1.0 503\r\n\r\n") == 503
        assert decode_status(b"NATS/1.0\r\nA: 1\r\n\r\n") == 0
        assert decode_status(None) == 0


class TestParser:
    async def test_any_split(self) -> None:
        """Messages arrive whole however the network cuts them, between a server's other lines."""
        rng = random.Random(7)
        seen: list[tuple[bytes, bytes, bytes | None, bytes]] = []
        client = NatsClient()
        client.sinks[3] = lambda *message: seen.append(message)
        sent: list[tuple[bytes, bytes, bytes | None, bytes]] = []
        wire = b""
        for i in range(400):
            body = rng.randbytes(rng.choice([0, 1, 5, 300])) + b"\r\nMSG x 3 0\r\n"
            reply = rng.choice([b"", b"_INBOX.r"])
            block = encode_headers({"N": str(i)}) if rng.random() < 0.5 else None
            address = b" ".join(part for part in (b"a.b%d" % i, b"3", reply) if part)
            sent.append((b"a.b%d" % i, reply, block, body))
            if block:
                wire += b"HMSG %b %d %d\r\n%b%b\r\n" % (address, len(block), len(block) + len(body), block, body)
            else:
                wire += b"MSG %b %d\r\n%b\r\n" % (address, len(body), body)
            wire += rng.choice([b"", b"", b"+OK\r\n", b"MSG gone 99 2\r\nhi\r\n"])
        while wire:
            cut = rng.randint(1, rng.choice([3, 40, 900]))
            await client._ps.parse(wire[:cut])
            wire = wire[cut:]
        assert seen == sent


class TestErrors:
    @pytest.mark.parametrize(
        ("number", "kind", "code"),
        [
            (10077, RetryError, Code.LOG_FULL),
            (10047, RetryError, Code.LOG_FULL),
            (10210, RetryError, Code.BUSY),
            (10054, RequestError, Code.BODY_TOO_LARGE),
            (10059, OperatorError, Code.WRONG_CONFIGURATION),
        ],
    )
    def test_groups(self, number: int, kind: type[Exception], code: Code) -> None:
        """JetStream's errors are grouped by what the caller does next."""
        error = api_error({"code": 500, "err_code": number, "description": "why"}, "here")
        assert isinstance(error, kind)
        assert error.code is code
        assert "why" in error.message

    def test_not_a_receipt(self) -> None:
        """A subscriber's reply is not mistaken for a receipt."""
        for body in (b"", b"+OK", b"[]", b"{}"):
            with pytest.raises(RetryError):
                read_ack(body, "s")

    def test_no_secrets(self) -> None:
        """A URL is shown without its user and password."""
        assert show_url("nats://me:secret@host:4222") == "nats://host:4222"
        assert show_url("me:secret@host:4222") == "nats://host:4222"
        bus = Bus(NatsClient(), NatsSettings(url="nats://me:secret@host:1"), NO_PROBE)
        assert "secret" not in str(bus._lost())


def test_differences_name_members() -> None:
    """Differences of a stream are reported by member; the server omits members at their default."""
    wanted = {"storage": "file", "allow_atomic": True, "max_age": 0, "republish": {"src": "a", "headers_only": True}}
    assert differences(wanted, {"storage": "file", "allow_atomic": True, "republish": wanted["republish"]}) == []
    faults = differences(wanted, {"storage": "memory", "max_age": 5, "republish": {"src": "a"}}, frozenset({"max_age"}))
    assert faults == [
        "storage is 'memory', not 'file'",
        "allow_atomic is False, not True",
        "republish is {'src': 'a', 'headers_only': False}, not {'src': 'a', 'headers_only': True}",
    ]
