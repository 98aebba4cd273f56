"""Faults of the network and of the servers behind it, through the proxies in front of them."""

from __future__ import annotations

import json
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from torture.fault import Fault, Inject
from torture.fixed_requests import MODELS
from torture.proxy import Mode
from torture.stage import Stage

STRETCH = {"nats": 1.0, "postgres": 4.0, "seaweed": 2.0}
"""By how much a fault's duration is multiplied: PostgreSQL may be unavailable for long."""

REBUILD_TRIES_MAX = 10
REBUILD_S_MAX = 600
SUBSCRIPTIONS = 200


def _through(name: str, mode: Mode) -> Inject:
    """Set a proxy's mode for a while."""

    def run(stage: Stage, fault: Fault) -> str:
        proxy = stage.proxies[name]
        before = proxy.hits
        proxy.set(mode)
        time.sleep(fault.last_s * STRETCH[name])
        proxy.set("pass")
        hits = proxy.hits - before
        return f"{mode} met {hits} times" if hits else "met nothing"

    return run


@contextmanager
def _raw_nats(stage: Stage) -> Iterator[socket.socket]:
    """Yield a plain connection to NATS, past the proxy."""
    settings = stage.nats.settings()
    host, _, port = settings.url.removeprefix("nats://").rpartition(":")
    options = {"user": settings.user, "pass": settings.password, "verbose": False, "pedantic": False}
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        connection.connect((host, int(port)))
        connection.sendall(b"CONNECT " + json.dumps(options).encode() + b"\r\nPING\r\n")
        while b"PONG" not in connection.recv(4_096):
            pass
        yield connection


def _slow_consumer(stage: Stage, fault: Fault) -> str:
    """Subscribe to everything, many times over, and never read any of it."""
    with _raw_nats(stage) as connection:
        connection.sendall(b"".join(b"SUB teatree.> %d\r\n" % number for number in range(SUBSCRIPTIONS)))
        time.sleep(2 * fault.last_s)
    return f"{SUBSCRIPTIONS} subscriptions that were not read"


def _false_hints(stage: Stage, fault: Fault) -> str:
    """Publish hints without requests, in any order, also for models that do not exist."""
    rng, count = random.Random(fault.chance), 0
    deadline = time.monotonic() + fault.last_s
    with _raw_nats(stage) as connection:
        while time.monotonic() < deadline:
            model = rng.choice([*MODELS, "missing", "NO-NAME", "x" * 100])
            connection.sendall(f"PUB teatree.wake.{model} 2\r\n{{}}\r\n".encode())
            count += 1
            time.sleep(0.003)
    return f"{count} hints without requests"


def _nats_loop(stage: Stage, fault: Fault) -> str:
    """Kill NATS again and again, each time as soon as it answers."""
    count = 2 + int(fault.chance * 5)
    for _ in range(count):
        stage.kill(stage.nats)
        stage.nats.start()
        time.sleep(fault.chance * 0.3)
    return f"killed {count} in a row"


def _postgres_rebuilt(stage: Stage, fault: Fault) -> str:
    """Drop the database while it is in use, create it empty, and rebuild it from the object store."""
    stage.drop_database()
    time.sleep(fault.last_s)
    command = [sys.executable, "-m", "teatree.cli.main", "catalog", "rebuild", "--json"]
    for tries in range(1, REBUILD_TRIES_MAX + 1):
        done = subprocess.run(
            command, env=stage.environ(), capture_output=True, text=True, timeout=REBUILD_S_MAX, check=False
        )
        if not done.returncode:
            return f"dropped it; rebuilt after {tries} tries"
    return f"dropped it; it could not be rebuilt: {done.stderr[-300:]}"


NETWORK: dict[str, tuple[int, Inject, bool]] = {
    "nats_cut": (4, _through("nats", "cut"), False),
    "nats_half_open": (4, _through("nats", "half_open"), False),
    "nats_delay": (3, _through("nats", "delay"), False),
    "nats_loop": (3, _nats_loop, False),
    "nats_lossy": (4, _through("nats", "lose"), False),
    "nats_reordered": (4, _through("nats", "reorder"), False),
    "slow_consumer": (3, _slow_consumer, False),
    "false_hints": (3, _false_hints, False),
    "postgres_cut": (3, _through("postgres", "cut"), False),
    "postgres_half_open": (3, _through("postgres", "half_open"), False),
    "postgres_delay": (2, _through("postgres", "delay"), False),
    "postgres_rebuilt": (2, _postgres_rebuilt, False),
    "s3_cut": (4, _through("seaweed", "cut"), True),
    "s3_half_open": (4, _through("seaweed", "half_open"), True),
    "s3_delay": (3, _through("seaweed", "delay"), True),
    "s3_500": (5, _through("seaweed", "answer_500"), True),
    "s3_503": (5, _through("seaweed", "answer_503"), True),
    "s3_reply_lost": (6, _through("seaweed", "lose_reply"), True),
}
"""Weight, what it does, and whether it needs an S3 server."""
