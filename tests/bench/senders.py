"""What many senders cost: `python tests/bench/senders.py [--models 10000] [--senders 1000] [--requests 300000]`.

Prints one JSON line a figure. Two real logs are filled with as many requests to as many models, one by a single sender
(the baseline), one by many; then the dispatcher's view of the log is timed on both, and a manager's read of a model
that all of them write to. With the defaults it takes a minute; all senders of all models are 10,000,000 requests.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import psutil
import structlog
from attrs import frozen
from figures import report

from teatree.embedded.nats import NatsServer
from teatree.messaging.batches import BATCH_MESSAGES_MAX, BatchPublisher, LogMessage
from teatree.messaging.bus import Bus
from teatree.messaging.log import LogReader
from teatree.messaging.streams import ensure_streams, log_state
from teatree_dispatcher.log_view import LogView
from teatree_dispatcher.model_registry import ModelRegistry

ROUNDS = 5
NEW = 1_000
"""Requests that come between two rounds, each to another model, and models that are hinted at together."""
BODY = b'{"table": "sales", "rows": [{"id": 1}]}'
BUSY = "busy"
"""The model that all senders write to."""


@frozen
class Load:
    """How many of each."""

    models: int
    senders: int
    requests: int


@frozen
class Figures:
    """What was measured on one log; in seconds, if the name has no unit."""

    accepted_per_s: float
    subjects: int
    memory_mb: float
    start: float
    restart: float
    nothing_new: float
    news: float
    hinted: float
    manager_reads: float


def requests(bus: Bus, load: Load, count: int, seed: int) -> Iterator[LogMessage]:
    """Yield requests to all models in turn, each from a random one of the senders."""
    rng = random.Random(seed)
    for number in range(count):
        subject = bus.subjects.request(f"m{number % load.models}", "append", f"s{rng.randrange(load.senders)}")
        yield subject, BODY, {}


async def publish(bus: Bus, messages: Iterator[LogMessage]) -> int:
    """Publish requests in atomic batches; return how many."""
    publisher = BatchPublisher(bus)
    batch: list[LogMessage] = []
    count = 0
    for message in messages:
        batch.append(message)
        if len(batch) == BATCH_MESSAGES_MAX:
            await publisher.put(batch)
            count, batch = count + len(batch), []
    if batch:
        await publisher.put(batch)
    await publisher.drain()
    return count + len(batch)


async def median(work: Callable[[], Awaitable[object]], before: Callable[[], Awaitable[object]] | None = None) -> float:
    """Return the seconds that some work takes, the median of a few times."""
    took = []
    for _ in range(ROUNDS):
        if before is not None:
            await before()
        begin = time.perf_counter()
        await work()
        took.append(time.perf_counter() - begin)
    return statistics.median(took)


async def measure(load: Load, folder: Path) -> Figures:
    """Fill one log and time what reads it."""
    with NatsServer(folder / "nats") as server:
        bus = await Bus.connect(server.settings(), name="bench", wait_ms=10_000)
        await ensure_streams(bus, log_bytes_max=-1, notices_age_s=60, notices_max=1_000)
        assert server.pid is not None
        process = psutil.Process(server.pid)
        begin = time.perf_counter()
        sent = await publish(bus, requests(bus, load, load.requests, 1))
        accepted_per_s = sent / (time.perf_counter() - begin)
        await publish(
            bus, ((bus.subjects.request(BUSY, "append", f"s{i % load.senders}"), BODY, {}) for i in range(NEW))
        )
        state = await log_state(bus)
        memory_mb = process.memory_info().rss / 1e6

        def view() -> LogView:
            return LogView(bus, ModelRegistry(), ["drop_model"], structlog.get_logger(), folder / "index.json")

        async def start(*, indexed: bool) -> None:
            if not indexed:
                (folder / "index.json").unlink(missing_ok=True)
            await view().read()

        running = view()
        await running.read()
        news = [0]

        async def receive() -> None:
            news[0] += 1
            await publish(bus, requests(bus, load, NEW, -news[0]))

        reader = LogReader(bus, BUSY)
        figures = Figures(
            accepted_per_s,
            state.subjects,
            memory_mb,
            start=await median(lambda: start(indexed=False)),
            restart=await median(lambda: start(indexed=True)),
            nothing_new=await median(running.read),
            news=await median(running.read, receive),
            hinted=await median(lambda: running.read_models([f"m{i}" for i in range(min(NEW, load.models))])),
            manager_reads=await median(lambda: reader.read(0, requests_max=NEW, bytes_max=10**8)),
        )
        await bus.close()
    return figures


def show(one: Figures, many: Figures, load: Load) -> None:
    """Print every figure beside that of a single sender."""
    what = "the same with one sender"
    report("subjects", many.subjects, "subjects", one.subjects, what)
    report("requests_accepted", many.accepted_per_s, "requests/s", one.accepted_per_s, what)
    report("nats_memory", many.memory_mb, "MB", one.memory_mb, what)
    more = max(many.subjects - one.subjects, 1)
    report("nats_memory_per_subject", (many.memory_mb - one.memory_mb) * 1e6 / more, "bytes")
    report("dispatcher_first_start", many.start * 1000, "ms", one.start * 1000, what)
    report("dispatcher_restart", many.restart * 1000, "ms", one.restart * 1000, what)
    report("dispatcher_round_without_news", many.nothing_new * 1000, "ms", one.nothing_new * 1000, what)
    report(f"dispatcher_round_with_{NEW}_requests", many.news * 1000, "ms", one.news * 1000, what)
    report(f"dispatcher_{min(NEW, load.models)}_hinted_models", many.hinted * 1000, "ms", one.hinted * 1000, what)
    report(f"manager_reads_{NEW}_requests", many.manager_reads * 1000, "ms", one.manager_reads * 1000, what)


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--models", type=int, default=10_000)
    parser.add_argument("--senders", type=int, default=1_000)
    parser.add_argument("--requests", type=int, default=300_000)
    args = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    os.nice(5)
    load = Load(args.models, args.senders, args.requests)
    found = []
    for senders in (1, args.senders):
        with tempfile.TemporaryDirectory(prefix="teatree-senders-") as folder:
            found.append(asyncio.run(measure(Load(load.models, senders, load.requests), Path(folder))))
    show(found[0], found[1], load)


if __name__ == "__main__":
    main()
