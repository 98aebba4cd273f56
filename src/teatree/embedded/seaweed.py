"""SeaweedFS from its wheel: a real S3 server on loopback, with one bucket and one pair of keys."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from teatree.contracts.errors import TeatreeError
from teatree.contracts.formats.codec import dump_json
from teatree.contracts.settings import StoreSettings
from teatree.embedded.ports import LOOPBACK, is_free, remembered_ports
from teatree.embedded.secret_file import kept_secrets, private_folder, write_private
from teatree.embedded.server import Server
from teatree.embedded.wheels import weed_program
from teatree.storage.objects.stores import open_store

if TYPE_CHECKING:
    import psutil

    from teatree.embedded.certificates import CertificateFiles

BUCKET = "teatree"
ACCESS_KEY = "teatree"
REGION = "us-east-1"
_MEMORY_LIMIT = "512MiB"
_PARTS = ("s3", "filer", "volume", "master", "admin")
_TWIN_OFFSET = 10_000
"""Each part also listens for gRPC this far above its port."""
_STOP_MS_MAX = 3_000
"""It ends in one second, or, when its parts wait for each other, in eleven; stored objects survive a kill."""
_GRPC = ("volume", "master", "filer", "s3", "admin", "worker", "mq", "msg_broker", "msg_agent", "client")
_HTTPS = ("master", "volume", "filer", "admin", "client")
"""Its parts by protocol, as `security.toml` names them; all share one certificate."""
_NAME = "teatree-seaweed"
_SOCKETS = ("s3", "filer")
_SECRETS = ("secret_key", "volume_writes", "filer_writes", "filer_reads")
_PROBE = "probe"
"""Where a small object is written to check that the server accepts objects."""
_MASTER_PANIC = b"topology.(*Topology).IsLeader("


class SeaweedServer(Server):
    """An S3 server that checks signatures; its ports stay the same for this folder.

    Its inner parts listen on loopback as well; their gRPC and HTTP require a certificate of an authority that is made
    for each start (`security.toml`): otherwise any user of this host could call a master's `/col/delete`.
    """

    name = "seaweed"

    def __init__(self, folder: Path, *, ready_ms_max: int = 60_000, stop_ms_max: int = _STOP_MS_MAX) -> None:
        super().__init__(folder, ready_ms_max=ready_ms_max, stop_ms_max=stop_ms_max)
        self._ports: dict[str, int] = {}

    def settings(self, prefix: str = "main") -> StoreSettings:
        """Return how to reach this prefix of the bucket; call it once the server has been started."""
        endpoint = f"http://{LOOPBACK}:{self._ports['s3']}"
        return StoreSettings(
            url=f"s3://{BUCKET}/{prefix}?endpoint={endpoint}&region={REGION}",
            access_key=ACCESS_KEY,
            secret_key=self._secrets()["secret_key"],
        )

    def _secrets(self) -> dict[str, str]:
        return kept_secrets(self._folder / "secrets.json", _SECRETS)

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _data_argument(self) -> str:
        return f"-dir={self._data}"

    @override
    def _recognise(self, process: psutil.Process) -> bool:
        return self._data_argument() in process.cmdline()

    @override
    def _command(self) -> list[str]:
        ports = [f"-{part}.port={port}" for part, port in self._ports.items()]
        twins = [f"-{part}.port.grpc={port + _TWIN_OFFSET}" for part, port in self._ports.items()]
        return [
            str(weed_program()),
            f"-logdir={self._folder / 'logs'}",
            "mini",
            self._data_argument(),
            f"-ip={LOOPBACK}",
            f"-ip.bind={LOOPBACK}",
            *ports,
            *twins,
            "-volume.preStopSeconds=0",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            *(f"-{part}.localSocket={self._sockets / part}" for part in _SOCKETS),
            f"-s3.config={self._folder / 's3.json'}",
            "-s3.allowDeleteBucketNotEmpty=false",
            "-s3.autoCreateBucket=false",
            f"-bucket={BUCKET}",
            "-master.telemetry=false",
            "-admin.ui=false",
            "-webdav=false",
        ]

    @property
    def _sockets(self) -> Path:
        """The folder of its sockets, closed to other users."""
        return self._folder / "s"

    @override
    def _environment(self) -> Mapping[str, str]:
        return {**super()._environment(), "GOMEMLIMIT": _MEMORY_LIMIT}

    @override
    def _spawn_options(self) -> dict[str, Any]:
        return {**super()._spawn_options(), "umask": 0o077}  # its sockets in /tmp are closed to other users

    @override
    def _prepare(self) -> None:
        from teatree.embedded.certificates import make_certificates  # noqa: PLC0415 - cryptography, only for this

        private_folder(self._data)
        private_folder(self._folder / "logs")
        private_folder(self._sockets)
        self._ports = remembered_ports(self._ports_path, _PARTS, _TWIN_OFFSET)
        secrets = self._secrets()
        keys = {"accessKey": ACCESS_KEY, "secretKey": secrets["secret_key"]}
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        identities = [{"name": "teatree", "credentials": [keys], "actions": actions}]
        write_private(self._folder / "s3.json", dump_json({"identities": identities}).decode())
        write_private(
            self._folder / "security.toml",
            "[access]\nui = false\n"
            "[filer.expose_directory_metadata]\nenabled = false\n"
            f'[jwt.signing]\nkey = "{secrets["volume_writes"]}"\n'
            f'[jwt.filer_signing]\nkey = "{secrets["filer_writes"]}"\n'
            f'[jwt.filer_signing.read]\nkey = "{secrets["filer_reads"]}"\n'
            + _mutual_tls(make_certificates(self._folder / "tls", _NAME)),
        )

    @override
    def _can_start_again(self, output: bytes) -> bool:
        """Its master can panic if a part connects before the master knows its leader; the next start may not."""
        return _MASTER_PANIC in output or super()._can_start_again(output)

    @override
    def _is_ready(self) -> bool:
        if is_free(self._ports["s3"]):  # boto3 would wait between its tries
            return False
        try:
            open_store(self.settings(_PROBE)).put("ready", b"")
        except TeatreeError:
            return False
        return True

    @override
    def _cleanup(self) -> None:
        """Remove the sockets that it puts into /tmp, whose names contain its ports."""
        for part, port in self._ports.items():
            for name in (f"{part}-{port}", f"{part}-grpc-{port + _TWIN_OFFSET}"):
                Path(f"/tmp/seaweedfs-{name}.sock").unlink(missing_ok=True)  # noqa: S108 - its choice, not ours


def _mutual_tls(files: CertificateFiles) -> str:
    """Return the part of `security.toml` that protects the connections among the parts."""
    own = f'cert = "{files.certificate}"\nkey = "{files.key}"\n'
    authority = f'ca = "{files.authority}"\n'
    grpc = "".join(f'[grpc.{part}]\n{own}allowed_commonNames = "{_NAME}"\n' for part in _GRPC)
    https = "".join(f"[https.{part}]\n{own}{authority}" for part in _HTTPS)
    return f"[grpc]\n{authority}{grpc}{https}enabled = true\n"  # `enabled` is the client's
