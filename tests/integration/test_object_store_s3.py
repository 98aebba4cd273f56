"""How an S3 store tells what is wrong: with the server, the credentials, the bucket."""

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
from teatree.storage.objects import open_store
from torture.preload import Clock

USE = """
import json, sys
from teatree.contracts.errors import TeatreeError
from teatree.contracts.settings import StoreSettings
from teatree.storage.objects import open_store
store = open_store(StoreSettings(*json.loads(sys.stdin.read())))
for use in (store.get, store.head, lambda key: store.put(key, b""), lambda key: list(store.list(key))):
    try:
        use("manifests/1")
    except TeatreeError as e:
        print(e.code.value, e, sep=": ")
"""
"""Say what a store tells of a read, a look, a write and a listing."""


def test_a_server_that_is_away_is_worth_another_try(s3_server: StoreSettings) -> None:
    """Nobody listening is told within seconds, as an error to try again after, with the key and the store."""
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


def test_wrong_credentials_are_the_operators_to_mend(s3_server: StoreSettings) -> None:
    """A wrong secret is told at once, and neither secret is repeated."""
    store = open_store(evolve(s3_server, secret_key="guessed-wrong"))
    for use in (store.get, store.head, lambda key: store.put(key, b""), lambda key: list(store.list(key))):
        with pytest.raises(OperatorError) as caught:
            use("manifests/1")
        assert caught.value.code == Code.NOT_AUTHORIZED
        assert "guessed-wrong" not in str(caught.value)
        assert str(s3_server.secret_key) not in str(caught.value)


@pytest.mark.parametrize("seconds", [3_600, -3_600])
def test_a_clock_that_is_wrong_is_worth_another_try(s3_server: StoreSettings, tmp_path: Path, seconds: int) -> None:
    """What the server refuses because of this host's clock is told as that, and not as wrong credentials."""
    clock = Clock(tmp_path / "clock")
    if not clock.environ:
        pytest.skip("no compiler to make a clock that moves")
    clock.move(seconds)
    access = json.dumps([s3_server.url, s3_server.access_key, s3_server.secret_key])
    told = subprocess.run(
        [sys.executable, "-c", USE],
        input=access,
        env={**os.environ, **clock.environ},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert len(told) == 4
    for line in told:
        assert line.startswith("unavailable: ")
        assert f"{'ahead of' if seconds > 0 else 'behind'} the store's" in line


def test_a_missing_bucket_is_no_empty_store(s3_server: StoreSettings) -> None:
    """A bucket that is not there is a wrong configuration to readers, never a store without objects."""
    _, _, options = s3_server.url.partition("?")
    store = open_store(evolve(s3_server, url=f"s3://no-such-bucket/p?{options}"))
    for use in (store.get, store.head, lambda key: list(store.list(key))):
        with pytest.raises(OperatorError) as caught:
            use("manifests/1")
        assert caught.value.code == Code.WRONG_CONFIGURATION
        assert "no-such-bucket" in str(caught.value)
