"""The health of an installation: which parts answer, and what each model's manager reports.

Every check has a limit in time, and none starts anything: a manager is asked only if its service answers a ping, since
the dispatcher would start one for a read.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

import orjson
from attrs import evolve, frozen

from teatree.client.direct_read import ask
from teatree.client.listing import ModelInfo, list_models
from teatree.client.session import Session
from teatree.contracts.clock import Clock
from teatree.contracts.errors import Code, RetryError, TeatreeError
from teatree.contracts.formats.requests import HEADER_VERSION
from teatree.contracts.settings import Settings
from teatree.messaging.bus import Bus
from teatree.messaging.frames import show_url
from teatree.messaging.last_requests import last_sequences
from teatree.messaging.log import count_after
from teatree.messaging.service import service_name
from teatree.messaging.streams import log_state

PART_MS_MAX = 5_000
"""Milliseconds that a part has to answer."""
LIST_MS_MAX = 20_000
PING_MS_MAX = 1_000
"""Milliseconds for a manager's ping, which NATS answers at once where there is none."""
ASKED_MAX = 32
"""Managers that are asked at the same time."""
_PROBE_KEY = "teatree-status"

T = TypeVar("T")


@frozen
class PartHealth:
    """Whether one part answers."""

    name: str
    state: str
    """`ready`, `not set` for PostgreSQL without an address, else the code of `error`."""
    address: str | None = None
    """Without user and password."""
    version: str | None = None
    latency_ms: float | None = None
    """Milliseconds of one round trip, without connecting."""
    detail: str | None = None
    error: TeatreeError | None = None


@frozen
class ManagerHealth:
    """What a manager reports about itself."""

    pid: int | None = None
    memory_bytes: int | None = None
    """Memory of its process that is resident now."""
    version: int | None = None
    offset: int | None = None
    waiting_for: str | None = None
    error: TeatreeError | None = None
    """Why its health is not known, though it listens."""


@frozen
class ModelHealth:
    """One model."""

    name: str
    state: str
    version: int
    why: str | None
    waiting_requests: int | None
    """Requests in the log that its newest version lacks; None if that is not known."""
    manager: ManagerHealth | None
    """None if no manager runs, or if NATS does not answer."""


@frozen
class StackHealth:
    """All parts and models."""

    parts: list[PartHealth]
    models: list[ModelHealth]
    error: TeatreeError | None = None
    """Why the models are not known, or not all about them."""


async def read_health(session: Session) -> StackHealth:
    """Return the health of the session's installation; the session need not be open, and is opened if that works."""
    settings = session.settings
    store, postgres, nats = await asyncio.gather(_store(session), _postgres(settings, session.clock), _nats(session))
    dispatcher = PartHealth("dispatcher", Code.UNAVAILABLE, detail="not known without NATS")
    if nats.error is None:
        dispatcher = await _checked("dispatcher", None, lambda: _ask_dispatcher(session.bus))
    parts = [nats, dispatcher, store, postgres]
    if store.error is not None and postgres.state != "ready":
        return StackHealth(parts, [])
    try:
        infos = await _in_time(lambda: list_models(settings, lambda: session.store), LIST_MS_MAX)
    except TeatreeError as e:
        return StackHealth(parts, [], e)
    known = [info for info in infos if info.state != "absent" or info.why]
    plain = [_model(info, None, None) for info in known]
    if nats.error is not None:
        return StackHealth(parts, plain)
    try:
        return StackHealth(parts, await _models(session.bus, known))
    except TeatreeError as e:  # the connection was lost meanwhile
        return StackHealth(parts, plain, e)


async def _nats(session: Session) -> PartHealth:
    async def check() -> PartHealth:
        await session.open()
        bus = session.bus
        began = bus.clock.monotonic()
        await bus.flush(PART_MS_MAX)
        latency_ms = _ms_since(bus.clock, began)
        log = await log_state(bus)
        size = "" if log.size_bytes_max < 0 else f" of {log.size_bytes_max:,}"
        detail = f"{log.messages:,} requests in {log.name}, {log.size_bytes:,}{size} bytes"
        return PartHealth("nats", "ready", version=bus.server_version, latency_ms=latency_ms, detail=detail)

    return await _checked("nats", show_url(session.settings.nats.url), check)


async def _ask_dispatcher(bus: Bus) -> PartHealth:
    began = bus.clock.monotonic()
    try:
        reply = await bus.request(bus.subjects.dispatcher_probe, timeout_ms=PART_MS_MAX)
    except RetryError as e:
        raise RetryError(
            e.code,
            "No dispatcher answers: models without a manager get none.",
            hint="Start it with the stack (`teatree up`); its log is shown by `teatree logs dispatcher`.",
        ) from None
    latency_ms = _ms_since(bus.clock, began)
    return PartHealth("dispatcher", "ready", version=reply.headers.get(HEADER_VERSION), latency_ms=latency_ms)


async def _store(session: Session) -> PartHealth:
    def check() -> PartHealth:
        store = session.store
        store.head(_PROBE_KEY)  # connects
        began = session.clock.monotonic()
        store.head(_PROBE_KEY)
        return PartHealth("store", "ready", latency_ms=_ms_since(session.clock, began))

    return await _checked("store", session.settings.store.url, lambda: _in_time(check, PART_MS_MAX))


async def _postgres(settings: Settings, clock: Clock) -> PartHealth:
    def check() -> PartHealth:
        from teatree.storage.catalog.postgres import Postgres  # noqa: PLC0415 - psycopg, only where there is a catalog

        postgres = Postgres(settings.postgres, application="teatree-status")
        try:
            with postgres.transaction() as session:
                began = clock.monotonic()
                version = session.rows("SHOW server_version")[0]["server_version"]
                return PartHealth("postgres", "ready", version=version, latency_ms=_ms_since(clock, began))
        finally:
            postgres.close()

    if settings.postgres.url is None:
        return PartHealth("postgres", "not set")
    return await _checked("postgres", _place(settings.postgres.url), lambda: _in_time(check, PART_MS_MAX))


def _place(url: str) -> str | None:
    """Return host and database of PostgreSQL's address; None if it is not a URL, which may hold a password anywhere."""
    if "://" not in url:
        return None
    parts = urlsplit(url)
    host = parts.netloc.rsplit("@", 1)[-1] or "".join(parse_qs(parts.query).get("host", [])[:1])
    return f"{host} {parts.path.lstrip('/')}".strip()


async def _checked(name: str, address: str | None, check: Callable[[], Awaitable[PartHealth]]) -> PartHealth:
    try:
        return evolve(await check(), address=address or None)
    except TeatreeError as e:
        return PartHealth(name, str(e.code), address or None, error=e)


async def _models(bus: Bus, infos: list[ModelInfo]) -> list[ModelHealth]:
    last = await last_sequences(bus, [info.name for info in infos])
    room = asyncio.Semaphore(ASKED_MAX)

    async def one(info: ModelInfo) -> ModelHealth:
        async with room:
            manager = await _manager(bus, info.name)
            offset = max(info.offset, (manager and manager.offset) or 0)
            waiting = await count_after(bus, info.name, offset) if last.get(info.name, 0) > offset else 0
            return _model(info, waiting, manager)

    return list(await asyncio.gather(*(one(info) for info in infos)))


def _model(info: ModelInfo, waiting: int | None, manager: ManagerHealth | None) -> ModelHealth:
    version = max(info.version, (manager and manager.version) or 0)
    why = info.why or (manager.waiting_for if manager else None)
    return ModelHealth(info.name, info.state, version, why, waiting, manager)


async def _manager(bus: Bus, model: str) -> ManagerHealth | None:
    """Return what a model's manager reports; None without one."""
    try:
        await bus.request(f"$SRV.PING.{service_name(bus.prefix, model)}", timeout_ms=PING_MS_MAX)
        reply = await ask(bus, bus.subjects.query(model, "health"), b"", PART_MS_MAX)
        found: dict[str, Any] = orjson.loads(reply.body)
    except TeatreeError as e:
        return None if e.code is Code.UNAVAILABLE else ManagerHealth(error=e)
    return ManagerHealth(
        pid=found.get("pid"),
        memory_bytes=found.get("memory_bytes"),
        version=found.get("version"),
        offset=found.get("offset"),
        waiting_for=found.get("waiting_for"),
    )


async def _in_time(work: Callable[[], T], ms_max: int) -> T:
    """Do blocking work in a thread that the process's end does not wait for; raises `timed_out`."""
    done: Future[T] = Future()
    done.set_running_or_notify_cancel()  # a result that comes too late is dropped

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as e:  # noqa: BLE001  raised where it is awaited
            done.set_exception(e)

    threading.Thread(target=run, daemon=True).start()
    try:
        async with asyncio.timeout(ms_max / 1000):
            return await asyncio.wrap_future(done)
    except TimeoutError:
        raise RetryError(Code.TIMED_OUT, f"There was no answer within {ms_max:,} ms.", hint="Try again.") from None


def _ms_since(clock: Clock, began_s: float) -> float:
    return round((clock.monotonic() - began_s) * 1000, 3)
