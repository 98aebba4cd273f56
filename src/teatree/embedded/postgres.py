"""PostgreSQL 18 from its wheel: one cluster, one database, a unix socket, scram passwords, nothing on the network.

superuser.json    the superuser's password; only the creation of the cluster reads it (docs/decisions/0024)
secrets.json      the passwords of the database's owner and of its reader
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from typing_extensions import override

from teatree.contracts.errors import Code, OperatorError
from teatree.contracts.process import process_id
from teatree.contracts.settings import PostgresSettings
from teatree.embedded.postgres_user import ServerUser, choose_server_user
from teatree.embedded.secret_file import kept_secrets, private_folder
from teatree.embedded.server import Server
from teatree.embedded.wheels import postgres_home

if TYPE_CHECKING:
    import psutil

SUPERUSER = "postgres"
"""Only for an operator: Teatree's processes do not connect as it."""
USER = "teatree"
"""Owns the database, and has no other rights."""
READER = "teatree_reader"
"""Reads the catalog's tables."""
DATABASE = "teatree"
_SOCKET_FOLDER_BYTES_MAX = 90
"""A socket's path fits in 107 bytes, and PostgreSQL adds `/.s.PGSQL.5432` and, once, `.lock`."""
_SETUP_S_MAX = 120
_NO_PID = 2**22 + 1
"""Above the largest pid that Linux gives."""
_READY_LINE = 8
_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "shared_buffers": "64MB",
    "max_connections": "200",
    "max_wal_size": "256MB",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_error_statement": "panic",  # statements hold users' data
}
_INITDB = ["--auth=reject", "--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
_HBA = "local all all scram-sha-256\n"
_ROLES = (
    f"ALTER ROLE {SUPERUSER} PASSWORD '{{superuser_password}}'",
    f"CREATE ROLE {USER} LOGIN PASSWORD '{{owner_password}}'",
    f"CREATE ROLE {READER} LOGIN CONNECTION LIMIT 20 PASSWORD '{{reader_password}}'",
    f"ALTER ROLE {READER} SET default_transaction_read_only = on",
    f"CREATE DATABASE {DATABASE} OWNER {USER}",
    f"REVOKE ALL ON DATABASE {DATABASE} FROM PUBLIC",
    f"GRANT CONNECT ON DATABASE {DATABASE} TO {READER}",
    f"REVOKE ALL ON DATABASE {SUPERUSER} FROM PUBLIC",
)
_RIGHTS = (f"ALTER DEFAULT PRIVILEGES FOR ROLE {USER} IN SCHEMA public GRANT SELECT ON TABLES TO {READER}",)
"""The reader's rights on the owner's tables, which do not exist yet."""


_SOCKET_LOCK = ".s.PGSQL.5432.lock"
"""Beside the socket: names the pid of its server as well."""


class PostgresServer(Server):
    """A PostgreSQL server that only its owner's processes can reach, through a socket in the file system.

    It works for root too, although PostgreSQL refuses to run as root: see `postgres_user`.
    """

    name = "postgres"
    stop_signal = signal.SIGINT
    """A fast shutdown: connections are ended, the cluster is checkpointed."""

    def __init__(
        self,
        folder: Path,
        *,
        user: ServerUser | None = None,
        ready_ms_max: int = 60_000,
        stop_ms_max: int = 20_000,
    ) -> None:
        super().__init__(folder, ready_ms_max=ready_ms_max, stop_ms_max=stop_ms_max)
        self._user = user or choose_server_user()
        self._home = postgres_home()

    def settings(self, database: str = DATABASE) -> PostgresSettings:
        """Return how to connect to a database of the server as the owner of `teatree`, and as its reader."""
        kept = self._secrets()
        reader_url = self._url(f"{READER}:{kept['reader_password']}", database)
        return PostgresSettings(url=self._url(USER, database), password=kept["password"], reader_url=reader_url)

    def superuser_settings(self, database: str = SUPERUSER) -> PostgresSettings:
        """Return how to connect to a database of the server with all rights."""
        return PostgresSettings(url=self._url(SUPERUSER, database), password=self._superuser_password())

    def _url(self, user: str, database: str) -> str:
        return f"postgresql://{user}@/{database}?host={quote(os.fsencode(self._socket_folder), safe='')}"

    def _secrets(self) -> dict[str, str]:
        return kept_secrets(self._folder / "secrets.json", ("password", "reader_password"))

    def _superuser_password(self) -> str:
        return kept_secrets(self._superuser_path, ("password",))["password"]

    @property
    def _superuser_path(self) -> Path:
        return self._folder / "superuser.json"

    @property
    def _cluster(self) -> Path:
        return self._folder / "cluster"

    @property
    def _run_folder(self) -> Path:
        """A short path in the folder for temporary files, for files that the server cannot reach in its folder."""
        key = hashlib.sha256(os.fsencode(self._folder)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"teatree-{os.getuid()}-{key}"

    @cached_property
    def _socket_folder(self) -> Path:
        """`socket` in the server's folder, if that path fits and the server can reach it, else the run folder."""
        inside = self._folder / "socket"
        fits = len(os.fsencode(inside)) <= _SOCKET_FOLDER_BYTES_MAX and "," not in str(inside)  # libpq splits there
        return inside if fits and self._user.reaches(private_folder(inside)) else self._run_folder

    def _socket_argument(self) -> str:
        quoted = str(self._socket_folder).replace('"', '""')
        return f'--unix_socket_directories="{quoted}"'

    @override
    def _recognise(self, process: psutil.Process) -> bool:
        return self._socket_argument() in process.cmdline()

    @override
    def _command(self) -> list[str]:
        settings = [f"--{name}={value}" for name, value in _SETTINGS.items()]
        cluster = self._user.cluster_argument(self._cluster)
        return self._user.command(self._home / "bin" / "postgres", "-D", cluster, self._socket_argument(), *settings)

    @override
    def _spawn_options(self) -> dict[str, Any]:
        return {"cwd": self._cluster, **self._user.options()}

    @override
    def _prepare(self) -> None:
        self._prepare_run_folder()
        self._prepare_programs()
        if not self._cluster.is_dir():
            self._create_cluster()
        elif not self._superuser_path.is_file():
            raise OperatorError(
                Code.WRONG_CONFIGURATION,
                "The cluster was made by an earlier Teatree, whose processes connect as its superuser.",
                where=str(self._folder),
                hint="Stop what runs on it, remove this folder, start again, and run `teatree catalog rebuild`: "
                "all its content comes from the object store.",
            )
        self._user.own(self._cluster)
        self._release_reused_pid()

    @override
    def _is_ready(self) -> bool:
        try:
            lines = (self._cluster / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= _READY_LINE and lines[_READY_LINE - 1].strip() == "ready" and lines[0] == str(self.pid)

    @override
    def _can_start_again(self, output: bytes) -> bool:
        if b"is still in use" not in output:
            return False
        time.sleep(0.2)  # the last processes of a killed server are about to end
        return True

    @override
    def _cleanup(self) -> None:
        if self._run_folder.is_dir():
            shutil.rmtree(self._run_folder)

    def _prepare_run_folder(self) -> None:
        if self._socket_folder != self._run_folder and self._user.can_run(self._home / "bin" / "initdb"):
            return
        self._run_folder.mkdir(mode=0o700, exist_ok=True)
        found = self._run_folder.lstat()
        if self._run_folder.is_symlink() or found.st_uid not in {os.getuid(), self._user.uid()}:
            raise OperatorError(
                Code.WRONG_CONFIGURATION,
                f"The folder {self._run_folder} belongs to another user.",
                where=str(self._run_folder),
                hint="Remove it, or set TMPDIR to another folder.",
            )
        self._user.own(self._run_folder)

    def _prepare_programs(self) -> None:
        """Copy the programs into the run folder if the server's user cannot run them where they are."""
        original = postgres_home()
        self._home = original
        if self._user.can_run(original / "bin" / "initdb"):
            return
        root = self._run_folder / "programs"
        if root.exists():
            shutil.rmtree(root)
        self._home = root / original.parent.name / original.name
        (self._home / "bin").mkdir(parents=True)
        for program in ("postgres", "initdb"):
            shutil.copy2(original / "bin" / program, self._home / "bin" / program)
        for part in (Path("lib") / "postgresql", Path("share")):
            shutil.copytree(original / part, self._home / part)
        libraries = original.parent.with_name(original.parent.name + ".libs")
        if libraries.is_dir():
            shutil.copytree(libraries, root / libraries.name)
        for folder in (root, *(path for path in root.rglob("*") if path.is_dir())):
            folder.chmod(0o755)
        self._user.own(root)

    def _create_cluster(self) -> None:
        """Make the cluster under a temporary name, and rename it when it is complete."""
        part = self._folder / "cluster.part"
        if part.exists():
            shutil.rmtree(part)
        part.mkdir(mode=0o700)
        self._user.own(part)
        self._run(part, "initdb", f"--username={SUPERUSER}", *_INITDB)
        (part / "pg_hba.conf").write_text(_HBA)
        self._set_up(part, SUPERUSER, _ROLES)
        self._set_up(part, DATABASE, _RIGHTS)
        part.rename(self._cluster)

    def _set_up(self, cluster: Path, database: str, statements: tuple[str, ...]) -> None:
        """Run statements as the superuser, on a server that accepts no connections yet."""
        kept = self._secrets()
        secrets = {
            "superuser_password": self._superuser_password(),
            "owner_password": kept["password"],
            "reader_password": kept["reader_password"],
        }
        text = "".join(f"{statement.format_map(secrets)};\n" for statement in statements)
        output = self._run(cluster, "postgres", "--single", stdin=text, database=database)
        if "ERROR" in output or "FATAL" in output:
            for secret in secrets.values():
                output = output.replace(secret, "…")
            raise _setup_failed(output)

    def _run(self, cluster: Path, program: str, *arguments: str, stdin: str = "", database: str | None = None) -> str:
        named = [*arguments, "-D", self._user.cluster_argument(cluster), *([database] if database else [])]
        done = subprocess.run(
            self._user.command(self._home / "bin" / program, *named),
            input=stdin,
            check=False,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_SETUP_S_MAX,
            env=dict(self._environment()),
            cwd=cluster,
            **self._user.options(),
        )
        if done.returncode != 0:
            raise _setup_failed(str(done.stdout))
        output: str = done.stdout
        return output

    def _release_reused_pid(self) -> None:
        """Let a crashed cluster start although another process has its pid now.

        The other lines of the lock file stay: the server uses them to find its processes that still run.
        """
        (self._socket_folder / _SOCKET_LOCK).unlink(missing_ok=True)
        lock = self._cluster / "postmaster.pid"
        if not lock.is_file():
            return
        pid, _, rest = lock.read_text().partition("\n")
        if pid.strip().isdigit() and process_id(int(pid)) is not None:
            lock.write_text(f"{_NO_PID}\n{rest}")


def _setup_failed(output: str) -> OperatorError:
    return OperatorError(
        Code.WRONG_CONFIGURATION,
        f"PostgreSQL's cluster could not be created. Its output: {output.strip()[-1_000:]}",
        where="postgres",
        hint="Check that the data folder is on a writable disk with space, or use an outside PostgreSQL.",
    )
