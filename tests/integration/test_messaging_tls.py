"""Connections to NATS over TLS, and those that can never succeed: an error with advice within seconds."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import evolve
from typing_extensions import override

from teatree.contracts.environment import connection_environ, read_settings
from teatree.contracts.errors import Code, OperatorError, TeatreeError
from teatree.contracts.formats.codec import dump_json
from teatree.contracts.settings import NatsSettings
from teatree.embedded.nats import NatsServer
from teatree.embedded.secret_file import write_private
from teatree.messaging.bus import Bus

TLS = Path(__file__).parents[1] / "data" / "tls"
CA = str(TLS / "ca.pem")
"""Signed the certificate of `localhost` and 127.0.0.1; valid until 2126."""
AT_ONCE_S = 30
"""Far below the time for which a transient failure is retried."""


class ConfiguredNats(NatsServer):
    """NATS with more in its configuration."""

    def __init__(self, folder: Path, more: dict[str, object]) -> None:
        super().__init__(folder)
        self._more = more

    @override
    def _prepare(self) -> None:
        super()._prepare()
        config = json.loads(self._config_path.read_text())
        write_private(self._config_path, dump_json({**config, **self._more}).decode())


@pytest.fixture(scope="module")
def tls_nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConfiguredNats]:
    """Return a NATS that takes TLS connections only."""
    tls = {"cert_file": str(TLS / "server.pem"), "key_file": str(TLS / "server.key")}
    with ConfiguredNats(tmp_path_factory.mktemp("tls"), {"tls": tls}) as server:
        yield server


async def failure(settings: NatsSettings) -> TeatreeError:
    """Return the error of connecting, which has to come at once although the caller would wait longer."""
    async with asyncio.timeout(AT_ONCE_S):
        with pytest.raises(TeatreeError) as caught:
            await Bus.connect(settings, name="test", wait_ms=60_000)
    return caught.value


@pytest.mark.parametrize("scheme", ["nats", "tls"])
async def test_an_unknown_authority_is_named_as_such(tls_nats: ConfiguredNats, scheme: str) -> None:
    """The error of an untrusted certificate names the setting for its authority."""
    settings = tls_nats.settings()
    error = await failure(evolve(settings, url=settings.url.replace("nats:", f"{scheme}:")))
    assert error.code is Code.WRONG_CONFIGURATION
    assert "not trusted" in str(error)
    assert "TEATREE_NATS_CA" in str(error)


@pytest.mark.parametrize("scheme", ["nats", "tls"])
async def test_tls_works_with_the_authority_without_warnings(
    tls_nats: ConfiguredNats, scheme: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With TEATREE_NATS_CA a bus connects, over a restart of the server too, and asyncio warns of nothing."""
    settings = tls_nats.settings()
    settings = evolve(settings, url=settings.url.replace("nats:", f"{scheme}:"), ca=CA)
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        bus = await Bus.connect(settings, name="test")
        await bus.flush()
        pid = tls_nats.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await asyncio.to_thread(tls_nats.stop)
        await asyncio.to_thread(tls_nats.start)
        await bus.wait_connected(30_000)
        await bus.flush()
        await bus.close()
    assert not [record for record in caplog.records if record.name == "asyncio"]


async def test_no_password_goes_to_a_server_without_tls(nats_server: NatsSettings) -> None:
    """tls:// and TEATREE_NATS_CA ask for TLS: a server without it is refused."""
    for settings in (evolve(nats_server, url=nats_server.url.replace("nats:", "tls:")), evolve(nats_server, ca=CA)):
        error = await failure(settings)
        assert (error.code, "offers no TLS" in str(error)) == (Code.WRONG_CONFIGURATION, True)


async def test_permanent_failures_are_not_retried(tls_nats: ConfiguredNats, nats_server: NatsSettings) -> None:
    """A wrong password, an invalid file of an authority, an invalid address."""
    assert (await failure(evolve(nats_server, password="wrong"))).code is Code.NOT_AUTHORIZED
    assert (await failure(evolve(tls_nats.settings(), password="wrong", ca=CA))).code is Code.NOT_AUTHORIZED
    for wrong in (
        evolve(nats_server, ca="/nonexistent.pem"),
        evolve(nats_server, ca=__file__),
        *(evolve(nats_server, url=url) for url in ("nats://", "nats://h:port", "http://127.0.0.1:1", "")),
    ):
        assert (await failure(wrong)).code is Code.WRONG_CONFIGURATION


async def test_a_subject_that_is_not_granted_is_not_authorized(tmp_path: Path) -> None:
    """A missing permission is an error that names the subject, not a time-out to be retried."""
    permissions = {"publish": {"deny": "teatree.request.>"}, "subscribe": {"deny": "teatree.notify.>"}}
    user = {"user": "guest", "password": "p", "permissions": permissions}
    with ConfiguredNats(tmp_path, {"authorization": {"users": [user]}}) as server:
        bus = await Bus.connect(evolve(server.settings(), user="guest", password="p"), name="test")
        with pytest.raises(OperatorError, match=r"does not let this user use teatree\.request\.m\.append"):
            await bus.publish_log("teatree.request.m.append", b"{}", timeout_ms=300)
        with pytest.raises(OperatorError, match=r"teatree\.notify\.>"):
            await bus.subscribe("teatree.notify.>")
        await bus.close()


def test_up_ends_at_once_where_it_cannot_connect(tls_nats: ConfiguredNats, tmp_path: Path) -> None:
    """`teatree up` on an outside NATS of an unknown authority ends in seconds with the error."""
    settings = evolve(read_settings({}, tmp_path), nats=tls_nats.settings())
    given = {name: value for name, value in connection_environ(settings).items() if name.startswith("TEATREE_NATS_")}
    up = subprocess.run(
        [sys.executable, "-m", "teatree.cli.main", "up", "--data", str(tmp_path / "up")],
        env={**given, "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert up.returncode == 5
    assert "TEATREE_NATS_CA" in up.stderr
