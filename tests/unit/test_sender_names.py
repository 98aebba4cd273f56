"""Senders' names: which are valid, how a user's name becomes one, and where a process has its own from."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from teatree import connect
from teatree.contracts.environment import read_settings, user_name
from teatree.contracts.errors import Code, OperatorError, RequestError
from teatree.contracts.formats.requests import read_request
from teatree.contracts.names import ANONYMOUS, check_sender, sender_name
from teatree.contracts.settings import NatsSettings, Settings

BAD = ["", "Anna", "a-b", "a.b", "a b", "1a", "_a", "__", "ä", "a" * 64, "*", ">", "_advanced"]


@pytest.mark.parametrize("name", ["a", "anna", "nightly_job_2", "a" * 63, "_"])
def test_valid(name: str) -> None:
    """A sender's name follows the rules for models, and `_` is no one in particular."""
    assert check_sender(name) == name
    request = read_request("sales", "append", 1, datetime.now(UTC), {}, b"{}", name)
    assert (request.sender, request.invalid) == (name, None)


@pytest.mark.parametrize("name", BAD)
def test_invalid(name: str) -> None:
    """Any other is refused, and a request from it is rejected without its name going any further."""
    with pytest.raises(RequestError) as refused:
        check_sender(name)
    assert (refused.value.code, refused.value.where) == (Code.BAD_NAME, "sender")
    request = read_request("sales", "append", 1, datetime.now(UTC), {"Teatree-Request-Id": "r1"}, b"{}", name)
    assert request.invalid is not None
    assert (request.invalid.code, request.invalid.where) == (Code.BAD_NAME, "sender")
    assert (request.sender, request.request_id) == (ANONYMOUS, "r1")


def test_the_same_request_from_another_sender() -> None:
    """A resend is compared by what it asks for, not by who sends it."""
    one, other = (read_request("sales", "append", 1, datetime.now(UTC), {}, b"{}", name) for name in ("anna", "bob"))
    assert one.body_hash == other.body_hash


@pytest.mark.parametrize(
    ("user", "sender"),
    [
        ("anna", "anna"),
        ("Anna.Schmidt", "anna_schmidt"),
        (r"CORP\\anna", "corp__anna"),
        ("ännchen", "nnchen"),
        ("42", "u_42"),
        ("_apt", "apt"),
        ("x" * 80, "x" * 63),
        ("李", ANONYMOUS),
        ("", ANONYMOUS),
    ],
)
def test_of_a_user(user: str, sender: str) -> None:
    """A user's name becomes the closest valid one."""
    assert sender_name(user) == sender
    assert check_sender(sender) == sender


def test_of_a_process(tmp_path: Path) -> None:
    """The caller's choice comes first, then the setting, then the user's name."""
    assert read_settings({}, tmp_path).nats.sender is None
    assert read_settings({"TEATREE_SENDER": "nightly"}, tmp_path).nats.sender == "nightly"
    mine = Settings(nats=NatsSettings(sender="nightly"))
    assert connect(settings=Settings()).sender == sender_name(user_name())
    assert connect(settings=mine).sender == "nightly"
    assert connect(settings=mine, sender="_").sender == ANONYMOUS


@pytest.mark.parametrize("name", BAD[1:])
def test_refused_before_anything_is_sent(tmp_path: Path, name: str) -> None:
    """An invalid name is refused when it is read."""
    with pytest.raises(OperatorError) as wrong:
        read_settings({"TEATREE_SENDER": name}, tmp_path)
    assert (wrong.value.code, wrong.value.where) == (Code.WRONG_CONFIGURATION, "TEATREE_SENDER")
    with pytest.raises(RequestError) as refused:
        connect(settings=Settings(), sender=name)
    assert refused.value.code is Code.BAD_NAME
