"""Faults of the log itself: its end is cut off, as a power failure does, or it is restored from an older copy.

Only these faults may lose accepted requests; an operator then runs `teatree log advance`, and all models resume.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

from teatree.embedded.nats import NatsServer
from torture.evidence import read_log
from torture.fault import Fault, Inject, ViolationError
from torture.stage import Stage

OPERATOR_S = 3.0
"""Seconds until the operator acts."""
ADVANCE_TRIES_MAX = 10


def _streams(folder: Path) -> Path:
    return folder / "jetstream"


def _remember(stage: Stage) -> int:
    """Read the log of a killed NATS, through another server on a copy of it; return how many requests it had."""
    copy = stage.folder / f"nats-{len(stage.logs_before)}"
    shutil.copytree(_streams(stage.nats.folder), _streams(copy))
    with NatsServer(copy) as server:
        stage.logs_before.append(asyncio.run(read_log(server.settings())))
    shutil.rmtree(copy)
    return len(stage.logs_before[-1])


def _advance(stage: Stage) -> str:
    """Run an operator's command, twice: what a manager had not published before the first shows only at the second."""
    reports = [_advance_once(stage)]
    time.sleep(OPERATOR_S)
    reports.append(_advance_once(stage))
    return " ".join(reports)


def _advance_once(stage: Stage) -> str:
    command = [sys.executable, "-m", "teatree.cli.main", "log", "advance", "--yes", "--json"]
    for _ in range(ADVANCE_TRIES_MAX):
        done = subprocess.run(command, env=stage.environ(), capture_output=True, text=True, timeout=120, check=False)
        if not done.returncode:
            return done.stdout.strip()
        time.sleep(1)
    raise ViolationError(f"`teatree log advance` fails: {done.stderr[-500:]}")


def _log_cut(stage: Stage, fault: Fault) -> str:
    """Kill NATS and cut bytes off the newest block of its log; an operator accepts the loss."""
    stage.kill(stage.nats)
    count = _remember(stage)
    blocks = sorted(_streams(stage.nats.folder).glob("**/REQUESTS/msgs/*.blk"), key=lambda path: int(path.stem))
    if not blocks or not blocks[-1].stat().st_size:
        stage.nats.start()
        return "no file"
    size = blocks[-1].stat().st_size
    left = max(size - random.Random(fault.chance).choice([1, 300, 3_000, 30_000, size]), 0)
    with blocks[-1].open("r+b") as file:
        file.truncate(left)
    stage.nats.start()
    time.sleep(OPERATOR_S)
    return f"cut a block of {size} bytes to {left}, of a log of {count} requests; {_advance(stage)}"


def _log_put_back(stage: Stage, fault: Fault) -> str:
    """Kill NATS, start it on a copy of its streams that is some seconds old; an operator accepts the loss."""
    copy = stage.folder / "older-copy"
    stage.kill(stage.nats)
    place = next(_streams(stage.nats.folder).glob("**/streams/REQUESTS"))
    shutil.copytree(place, copy)
    stage.nats.start()
    time.sleep(1 + fault.last_s)
    stage.kill(stage.nats)
    count = _remember(stage)
    shutil.rmtree(place)
    copy.rename(place)
    stage.nats.start()
    time.sleep(OPERATOR_S)
    return f"put an older copy in the place of a log of {count} requests; {_advance(stage)}"


LOG: dict[str, tuple[int, Inject, bool]] = {
    "log_cut": (1, _log_cut, False),
    "log_put_back": (1, _log_put_back, False),
}
"""Weight, what it does, and whether it needs an S3 server."""
