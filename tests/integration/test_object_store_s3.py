"""The errors of an S3 store: of the server, the credentials, the clock, the bucket."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from attrs import evolve

from teatree.contracts.errors import Code, OperatorError, RetryError
from teatree.contracts.settings import StoreSettings
from teatree.storage.objects.stores import open_store
from torture.preload import MovedClock

USE = """
import json, sys
from teatree.contracts.errors import TeatreeError
from teatree.contracts.settings import StoreSettings
from teatree.storage.objects.stores import open_store
store = open_store(StoreSettings(*json.loads(sys.stdin.read())))
for use in (store.get, store.head, lambda key: store.put(key, b""), lambda key: list(store.list(key))):
    try:
        use("manifests/1")
    except TeatreeError as e:
        print(e.code.value, e, sep=": ")
"""
"""Prints the errors of a read, a `head`, a write and a listing."""


def test_an_unreachable_server_is_a_retryable_error(s3_server: StoreSettings) -> None:
    """An unreachable server is reported within seconds, as a retryable error with the key and the store."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        away = f"s3://bucket/p?endpoint=http://127.0.0.1:{closed.getsockname()[1]}"
        store = open_store(evolve(s3_server, url=away))
        for use in (store.get, store.head, lambda key: store.put_if_absent(key, b""), lambda key: store.delete([key])):
            with pytest.raises(RetryError) as caught:
                use("manifests/1")
            assert caught.value.code == Code.UNAVAILABLE
            assert caught.value.where == "manifests/1"
            assert away in str(caught.value)


def test_wrong_credentials_are_an_operators_error(s3_server: StoreSettings) -> None:
    """A wrong secret is reported at once, and the message holds neither secret."""
    store = open_store(evolve(s3_server, secret_key="guessed-wrong"))
    for use in (store.get, store.head, lambda key: store.put(key, b""), lambda key: list(store.list(key))):
        with pytest.raises(OperatorError) as caught:
            use("manifests/1")
        assert caught.value.code == Code.NOT_AUTHORIZED
        assert "guessed-wrong" not in str(caught.value)
        assert str(s3_server.secret_key) not in str(caught.value)


@pytest.mark.parametrize("seconds", [3_600, -3_600])
def test_a_wrong_clock_is_a_retryable_error(s3_server: StoreSettings, tmp_path: Path, seconds: int) -> None:
    """What the server refuses because of this host's clock is reported as that, and not as wrong credentials."""
    clock = MovedClock(tmp_path / "clock")
    if not clock.environ:
        pytest.skip("no compiler to make a clock that moves")
    clock.move(seconds)
    access = json.dumps([s3_server.url, s3_server.access_key, s3_server.secret_key])
    printed = subprocess.run(
        [sys.executable, "-c", USE],
        input=access,
        env={**os.environ, **clock.environ},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert len(printed) == 4
    for line in printed:
        assert line.startswith("unavailable: ")
        assert f"{'ahead of' if seconds > 0 else 'behind'} the store's" in line


def test_a_missing_bucket_is_no_empty_store(s3_server: StoreSettings) -> None:
    """Readers report a bucket that does not exist as a wrong configuration, not as an empty store."""
    _, _, options = s3_server.url.partition("?")
    store = open_store(evolve(s3_server, url=f"s3://no-such-bucket/p?{options}"))
    for use in (store.get, store.head, lambda key: list(store.list(key))):
        with pytest.raises(OperatorError) as caught:
            use("manifests/1")
        assert caught.value.code == Code.WRONG_CONFIGURATION
        assert "no-such-bucket" in str(caught.value)
