"""The embedded servers: reachable with their secrets only, on loopback only, and recovered after any crash."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import stat
import subprocess
import sys
import time
from pathlib import Path

import nats
import nats.errors
import psutil
import psycopg
import pytest
from attrs import evolve
from nats.js.api import StreamConfig
from typing_extensions import override

from servers import TestServers
from teatree.contracts.errors import Code, OperatorError, RetryError
from teatree.contracts.process import is_alive, process_id
from teatree.contracts.settings import NatsSettings, PostgresSettings
from teatree.embedded.nats import NatsServer
from teatree.embedded.postgres import PostgresServer
from teatree.embedded.postgres_user import OtherUser
from teatree.embedded.seaweed import SeaweedServer
from teatree.embedded.server import Server
from teatree.storage.catalog.migrations.migrate import migrate
from teatree.storage.catalog.postgres import Postgres
from teatree.storage.objects.stores import open_store

KINDS: list[type[Server]] = [NatsServer, PostgresServer, SeaweedServer]


def kill_dead(server: Server) -> None:
    """Kill a server and wait until nothing of that process is left."""
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    while server.is_running():
        time.sleep(0.01)


async def count_messages(settings: NatsSettings) -> int:
    """Publish one message to the prefix's stream; return how many it holds."""
    connection = await nats.connect(settings.url, user=settings.user, password=settings.password)
    try:
        jetstream = connection.jetstream()
        await jetstream.add_stream(StreamConfig(name=settings.prefix, subjects=[f"{settings.prefix}.>"]))
        return (await jetstream.publish(f"{settings.prefix}.x", b"1")).seq
    finally:
        await connection.close()


def count_rows(settings: PostgresSettings) -> int:
    """Insert one row into a table; return how many it holds."""
    with psycopg.connect(settings.url or "", password=settings.password) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS t (i INT)")
        connection.execute("INSERT INTO t VALUES (1)")
        row = connection.execute("SELECT count(*) FROM t").fetchone()
        assert row is not None
        return int(row[0])


async def test_nats_keeps_acknowledged_messages_and_its_port_over_kill_9(tmp_path: Path) -> None:
    """Acknowledged messages are kept over a kill, at the same address, with the same password."""
    with NatsServer(tmp_path) as server:
        settings = server.settings()
        assert await count_messages(settings) == 1
        kill_dead(server)
        server.start()
        assert server.settings() == settings
        assert await count_messages(settings) == 2


async def test_nats_requires_the_password(nats_server: NatsSettings) -> None:
    """A client without the password is refused."""
    with pytest.raises(nats.errors.Error, match="Authorization"):
        await nats.connect(nats_server.url, allow_reconnect=False)


async def test_nats_syncs_every_message(servers: TestServers) -> None:
    """The configuration syncs always, and only its owner can read it."""
    config = servers.nats().folder / "nats.conf"
    assert '"sync_interval":"always"' in config.read_text().replace(" ", "")
    assert stat.S_IMODE(config.stat().st_mode) == 0o600


def test_postgres_keeps_committed_rows_over_kill_9(tmp_path: Path) -> None:
    """Committed rows are kept over a kill; the lock file that is left does not prevent a start."""
    with PostgresServer(tmp_path) as server:
        assert count_rows(server.settings()) == 1
        kill_dead(server)
        server.start()
        assert count_rows(server.settings()) == 2


def test_postgres_starts_although_its_old_pid_is_in_use(tmp_path: Path) -> None:
    """A pid in a lock file that another process has now does not prevent a start."""
    with PostgresServer(tmp_path) as server:
        assert count_rows(server.settings()) == 1
        kill_dead(server)
        lock = tmp_path / "cluster" / "postmaster.pid"
        lock.write_text(f"{os.getpid()}\n" + lock.read_text().partition("\n")[2])
        of_socket = tmp_path / "socket" / ".s.PGSQL.5432.lock"
        of_socket.write_text(f"{os.getpid()}\n" + of_socket.read_text().partition("\n")[2])
        server.start()
        assert count_rows(server.settings()) == 2


def test_postgres_requires_the_password(postgres_server: PostgresSettings) -> None:
    """A client with another password is refused."""
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(postgres_server.url or "", password="wrong")


def test_postgres_gives_its_owner_one_database_and_its_reader_a_look(servers: TestServers) -> None:
    """The owner is no superuser and reaches no program or file; the reader sees later tables too and changes none."""
    server = servers.postgres()
    settings = server.settings()
    with psycopg.connect(settings.url or "", password=settings.password, autocommit=True) as owner:
        owner.execute("CREATE TABLE seen (i INT); INSERT INTO seen VALUES (7)")
        row = owner.execute("SELECT rolsuper, rolcreatedb, rolcreaterole FROM pg_roles WHERE rolname = current_user")
        assert row.fetchone() == (False, False, False)
        for statement in ("COPY seen TO PROGRAM 'true'", "COPY seen FROM '/etc/passwd'", "CREATE ROLE other SUPERUSER"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                owner.execute(statement)
        try:
            with psycopg.connect(settings.reader_url or "", autocommit=True) as reader:
                assert reader.execute("SELECT i FROM seen").fetchall() == [(7,)]
                reader.execute("SET default_transaction_read_only = off")
                for statement in ("DELETE FROM seen", "CREATE TABLE x (i INT)", "CREATE TEMP TABLE x (i INT)"):
                    with pytest.raises(psycopg.errors.InsufficientPrivilege):
                        reader.execute(statement)
        finally:
            owner.execute("DROP TABLE seen")
    for url in (settings.url, settings.reader_url):
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(str(url).replace("/teatree?", "/postgres?"), password=settings.password)
    secret = server.superuser_settings().password or ""
    assert secret not in (server.folder / "secrets.json").read_text()
    assert stat.S_IMODE((server.folder / "superuser.json").stat().st_mode) == 0o600


def test_a_cluster_of_an_earlier_teatree_is_refused(tmp_path: Path) -> None:
    """A cluster whose owner is its superuser is refused with what to do."""
    (tmp_path / "cluster").mkdir()
    with pytest.raises(OperatorError, match="catalog rebuild"):
        PostgresServer(tmp_path).start()


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_in_another_encoding_is_refused(servers: TestServers, encoding: str) -> None:
    """A database that cannot hold every text is refused when first reached, with what to do."""
    server, name = servers.postgres(), f"encoded_{encoding.lower()}"
    how = f"OWNER teatree ENCODING '{encoding}' TEMPLATE template0 LOCALE_PROVIDER libc LOCALE 'C'"
    servers.run_sql(server.superuser_settings(), f"CREATE DATABASE {name} {how}")
    try:
        with pytest.raises(OperatorError, match=f"{name} has the encoding {encoding}.*UTF8") as caught:
            Postgres(server.settings(name)).connect()
        assert caught.value.code is Code.WRONG_CONFIGURATION
        with pytest.raises(OperatorError, match="must be UTF8"):
            migrate(server.settings(name))
    finally:
        servers.run_sql(server.superuser_settings(), f"DROP DATABASE {name} WITH (FORCE)")


def test_postgres_takes_a_folder_whose_path_is_too_long_for_a_socket(tmp_path: Path) -> None:
    """The socket is then in a short private folder, which is deleted with the server."""
    with PostgresServer(tmp_path / ("long" * 30)) as server:
        host = psycopg.conninfo.conninfo_to_dict(server.settings().url or "")["host"]
        assert stat.S_IMODE(Path(str(host)).stat().st_mode) == 0o700
        assert count_rows(server.settings()) == 1
    assert not Path(str(host)).exists()


def test_postgres_is_created_again_when_its_creation_was_cut_short(tmp_path: Path) -> None:
    """An incomplete cluster is never used."""
    (tmp_path / "cluster.part" / "base").mkdir(parents=True)
    with PostgresServer(tmp_path) as server:
        assert count_rows(server.settings()) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("home", ["open", "closed"])
def test_postgres_runs_as_another_user_where_root_has_no_user_namespaces(tmp_path: Path, home: str) -> None:
    """Root in a container: the server can enter neither the folder nor, below a 0700 home, its programs."""
    other_user = OtherUser(65534, 65534)
    folder = tmp_path / home
    folder.mkdir(mode=0o700 if home == "closed" else 0o755)
    with PostgresServer(folder / "data", user=other_user) as server:
        assert server.pid is not None
        assert Path(f"/proc/{server.pid}").stat().st_uid == 65534
        assert count_rows(server.settings()) == 1


def test_s3_keeps_objects_over_kill_9_and_checks_signatures(tmp_path: Path) -> None:
    """Stored objects are kept over a kill, at the same address, for the holder of the key only."""
    with SeaweedServer(tmp_path) as server:
        settings = server.settings()
        open_store(settings).put("x", b"1")
        kill_dead(server)
        server.start()
        assert server.settings() == settings
        assert open_store(settings).get("x") == b"1"
        with pytest.raises(OperatorError) as caught:
            open_store(evolve(settings, secret_key="wrong")).get("x")
        assert caught.value.code is Code.NOT_AUTHORIZED


@pytest.mark.parametrize("kind", KINDS)
def test_the_next_start_ends_what_a_killed_run_left(tmp_path: Path, kind: type[Server]) -> None:
    """A server whose parent was killed is found and ended by the next start in its folder, even without a pid file."""
    script = (
        "import os, sys; from pathlib import Path; from importlib import import_module; "
        "server = getattr(import_module(sys.argv[1]), sys.argv[2])(Path(sys.argv[3])); server.start(); "
        "print(server.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    for has_pid_file in (True, False) if kind is NatsServer else (False,):
        command = [sys.executable, "-c", script, kind.__module__, kind.__name__, str(tmp_path)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        left = process_id(int(done.stdout))
        assert left is not None, done.stderr
        if not has_pid_file:
            (tmp_path / "server.pid.json").unlink()
        with kind(tmp_path) as server:
            assert not is_alive(left)
            assert server.pid not in {None, left.pid}


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_listens_beyond_loopback(servers: TestServers, kind: type[Server]) -> None:
    """No socket of a server is bound to an address that another host could reach."""
    server = {NatsServer: servers.nats, PostgresServer: servers.postgres, SeaweedServer: servers.seaweed}[kind]()
    connections = psutil.Process(server.pid).net_connections(kind="inet")
    listening = {c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN}
    assert listening == (set() if kind is PostgresServer else {"127.0.0.1"})


@pytest.mark.parametrize("kind", KINDS)
def test_secrets_stay_out_of_arguments_logs_and_open_files(servers: TestServers, kind: type[Server]) -> None:
    """No secret of a server can be read by another user."""
    server = {NatsServer: servers.nats, PostgresServer: servers.postgres, SeaweedServer: servers.seaweed}[kind]()
    secrets = [part for part in (server.folder / "secrets.json").read_text().split('"') if len(part) == 48]
    assert secrets
    seen = " ".join(psutil.Process(server.pid).cmdline()) + server.log_path.read_text()
    assert not any(secret in seen for secret in secrets)
    assert stat.S_IMODE(server.folder.stat().st_mode) == 0o700


def test_a_port_that_was_taken_meanwhile_is_replaced(tmp_path: Path) -> None:
    """When another process took the port between two runs, the server chooses another one."""
    with NatsServer(tmp_path) as server:
        port = int(server.settings().url.rpartition(":")[2])
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        with NatsServer(tmp_path) as server:
            assert not server.settings().url.endswith(f":{port}")
            now = server.settings().url.rpartition(":")[2]
            assert server.moved == f"client port {port} is taken, now {now}"


def test_a_server_that_cannot_start_reports_the_reason(tmp_path: Path) -> None:
    """The error holds the end of the server's log, and nothing is left running."""
    (tmp_path / "jetstream").write_text("not a folder")
    server = NatsServer(tmp_path)
    with pytest.raises(RetryError, match="storage directory is not a directory"):
        server.start()
    assert not server.is_running()


def test_an_object_store_whose_own_start_fails_is_started_again(tmp_path: Path) -> None:
    """SeaweedFS' master can panic with a nil pointer before it has a leader: it is started once more."""
    starts: list[int] = []

    class Panics(SeaweedServer):
        @override
        def _command(self) -> list[str]:
            starts.append(1)
            panic = "panic: nil pointer\nweed/topology.(*Topology).IsLeader(0x378a)"
            return ["/bin/sh", "-c", f"echo '{panic}'; exit 2"] if len(starts) == 1 else super()._command()

    with Panics(tmp_path / "seaweed") as server:
        assert server.is_running()
    assert len(starts) == 2


def test_the_object_store_requires_certificates(servers: TestServers) -> None:
    """All ports but S3's, which checks signatures, refuse clients without a certificate; sockets are private."""
    server = servers.seaweed()
    open_port = int(server.settings().url.partition("endpoint=http://127.0.0.1:")[2].partition("&")[0])
    connections = psutil.Process(server.pid).net_connections(kind="inet")
    ports = {c.laddr.port for c in connections if c.status == psutil.CONN_LISTEN} - {open_port}
    assert len(ports) == 9
    for port in ports:
        assert not answer(port, encrypted=True)
        plain = answer(port, encrypted=False)
        assert not plain or b"Client sent an HTTP request to an HTTPS server" in plain
    named = [str(c.laddr) for c in psutil.Process(server.pid).net_connections(kind="unix") if c.laddr]
    assert named
    for path in map(Path, named):
        assert path.is_relative_to(server.folder) or not stat.S_IMODE(path.stat().st_mode) & 0o077
    for path in (server.folder / "tls").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def answer(port: int, *, encrypted: bool) -> bytes:
    """Return the reply of a port to a status request without a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2", "http/1.1"])
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as plain:
            connection = context.wrap_socket(plain) if encrypted else plain
            connection.sendall(b"GET /dir/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return connection.recv(4_096)
    except OSError:
        return b""
