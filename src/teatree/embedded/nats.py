"""NATS with JetStream from its wheel: every message is synced to the disk before it is acknowledged."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING

from typing_extensions import override

from teatree.contracts.formats.codec import dump_json
from teatree.contracts.settings import NatsSettings
from teatree.embedded.ports import LOOPBACK, remembered_ports
from teatree.embedded.secret_file import kept_secrets, write_private
from teatree.embedded.server import Server
from teatree.embedded.wheels import nats_program

if TYPE_CHECKING:
    import psutil

USER = "teatree"
MAX_PAYLOAD_BYTES = 8 * 1024 * 1024
_MEMORY_STORE_BYTES_MAX = 256_000_000
_FILE_STORE_BYTES_MAX = 1_000_000_000_000
"""Streams have their own limits. The default would be a part of the space that is free now, and on a fuller disk the
server would refuse existing streams."""


class NatsServer(Server):
    """A NATS server on a loopback port that stays the same for this folder."""

    name = "nats"

    def __init__(self, folder: Path, *, ready_ms_max: int = 30_000, stop_ms_max: int = 10_000) -> None:
        super().__init__(folder, ready_ms_max=ready_ms_max, stop_ms_max=stop_ms_max)
        self._port = 0

    def settings(self, prefix: str = "teatree") -> NatsSettings:
        """Return how to reach the server; call it once it has been started."""
        return NatsSettings(url=f"nats://{LOOPBACK}:{self._port}", user=USER, password=self._password(), prefix=prefix)

    def _password(self) -> str:
        return kept_secrets(self._folder / "secrets.json", ("password",))["password"]

    @property
    def _config_path(self) -> Path:
        return self._folder / "nats.conf"

    @override
    def _command(self) -> list[str]:
        return [str(nats_program()), "-c", str(self._config_path)]

    @override
    def _recognise(self, process: psutil.Process) -> bool:
        return str(self._config_path) in process.cmdline()

    @override
    def _prepare(self) -> None:
        self._port = remembered_ports(self._ports_path, ("client",))["client"]
        config = {
            "server_name": "teatree",
            "listen": f"{LOOPBACK}:{self._port}",
            "max_payload": MAX_PAYLOAD_BYTES,
            "ping_interval": "10s",
            "jetstream": {
                "store_dir": str(self._folder / "jetstream"),
                "sync_interval": "always",
                "max_memory_store": _MEMORY_STORE_BYTES_MAX,
                "max_file_store": _FILE_STORE_BYTES_MAX,
            },
            "authorization": {"users": [{"user": USER, "password": self._password()}]},
        }
        write_private(self._config_path, dump_json(config).decode())  # its configuration language contains JSON

    @override
    def _is_ready(self) -> bool:
        try:
            with socket.create_connection((LOOPBACK, self._port), timeout=1) as connection:
                return connection.recv(5) == b"INFO "
        except OSError:
            return False
