"""Requests as the client publishes them."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from teatree.cli.requests.json_args import read_args
from teatree.client.sending.message import Message, encode
from teatree.contracts.errors import Code, RequestError
from teatree.contracts.formats.requests import read_request
from teatree.messaging.subjects import Subjects


def body_of(args: dict[str, Any]) -> bytes:
    """Return the body with which arguments are published."""
    return encode(Message("append", args), Subjects(), "sales", "anna", size_bytes_max=1_000_000).body


def test_a_message_is_what_a_manager_reads() -> None:
    """The published headers have id and group, and no header by which JetStream would deduplicate."""
    message = Message("append", {"table": "t"}, rows=[{"id": 1}], request_id="my-1")
    encoded = encode(message, Subjects(), "sales", "anna", size_bytes_max=1_000_000, group="g1", expected_version=3)
    assert encoded.subject == "teatree.request.sales.append.anna"
    assert "Nats-Msg-Id" not in encoded.headers
    request = read_request("sales", "append", 1, datetime.now(UTC), encoded.headers, encoded.body)
    assert (request.request_id, request.group, request.invalid) == ("my-1", "g1", None)
    assert json.loads(request.body) == {"table": "t", "expected_version": 3, "rows": [{"id": 1}]}


def test_values_travel_without_loss() -> None:
    """Decimals and large integers are numbers with all their digits, bytes are Base64, moments are UTC."""
    args = {"a": Decimal("1.10"), "b": 2**70, "c": b"\xff\x00", "d": datetime(2026, 1, 2, 3, tzinfo=UTC), "e": 2**63}
    assert json.loads(body_of(args), parse_float=Decimal) == {
        "a": Decimal("1.10"),
        "b": 2**70,
        "c": "/wA=",
        "d": "2026-01-02T03:00:00Z",
        "e": 2**63,
    }


@pytest.mark.parametrize("value", [math.nan, math.inf, [{"x": math.nan}]])
def test_what_json_would_change_is_refused(value: Any) -> None:
    """NaN is refused, not turned into null; the error names its place."""
    with pytest.raises(RequestError) as caught:
        body_of({"rows": value})
    assert caught.value.code is Code.BAD_ARGUMENT
    assert str(caught.value.where).startswith("rows")


def test_numbers_typed_on_the_command_line_keep_their_digits() -> None:
    """No digit is lost between the shell and the log."""
    text = '{"amount":1234567890.12345678901234567890,"n":123456789012345678901234567890,"e":1e400}'
    assert body_of(read_args(text, "ARGS")).decode() == text


@pytest.mark.parametrize(
    ("model", "function", "request_id", "sender"),
    [
        ("No", "append", "1", "anna"),
        ("sales", "x.y", "1", "anna"),
        ("sales", "append", "a b", "anna"),
        ("sales", "append", "seq-1", "anna"),
        ("sales", "append", "1", "anna.b"),
        ("sales", "append", "1", ""),
    ],
)
def test_names_are_checked_before_anything_is_sent(model: str, function: str, request_id: str, sender: str) -> None:
    """A name that cannot be part of a subject, and a reserved id, are refused by the client."""
    with pytest.raises(RequestError):
        encode(Message(function, {}, request_id=request_id), Subjects(), model, sender, size_bytes_max=1_000)
