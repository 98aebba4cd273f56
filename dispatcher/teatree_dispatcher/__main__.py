"""`python -m teatree_dispatcher`: settings from the environment, JSON lines on stderr, SIGTERM or SIGINT stop it."""

from __future__ import annotations

import asyncio
import importlib.util
import signal
import sys
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import structlog
from structlog.typing import FilteringBoundLogger

from teatree.contracts.environment import process_environ, read_settings, variable_of
from teatree.contracts.errors import RetryError, TeatreeError
from teatree.contracts.failpoints import failing_probe
from teatree.contracts.logs import forward_events
from teatree.contracts.parts import PartGroup, make_part
from teatree.contracts.settings import Settings
from teatree.functions.registry import built_in_functions
from teatree.messaging.bus import Bus
from teatree.messaging.streams import ensure_streams
from teatree.storage.breaker import Breaker
from teatree.storage.objects.base import ObjectStore
from teatree.storage.objects.guarded import GuardedStore
from teatree.storage.objects.probe import ensure_probed
from teatree.storage.objects.stores import open_store
from teatree_dispatcher.catalog_view import CatalogView
from teatree_dispatcher.context import DispatcherContext
from teatree_dispatcher.launchers.base import Launcher
from teatree_dispatcher.loop import Dispatcher

if TYPE_CHECKING:
    from teatree.storage.catalog.catalog import Catalog

CONNECT_WAIT_MS = 30_000
THREADS_MAX = 32
"""Threads for blocking work: all checks for reads and for the loop at once, and the catalog."""
LOG_INDEX = "_dispatcher/log-index.json"
"""The index of the log, in the data folder; no model has the folder's name."""
EXIT_RETRY = 75
EXIT_OPERATOR = 78


def main() -> int:
    """Run the dispatcher; returns 0, 75 if it can be tried again, 78 if an operator must act."""
    log = _logger()
    try:
        settings = read_settings(process_environ())
        _run(_dispatch(settings, log))
    except TeatreeError as e:
        log.error("the dispatcher cannot run", **e.to_dict())  # noqa: TRY400  the code suffices without a traceback
        return EXIT_RETRY if isinstance(e, RetryError) else EXIT_OPERATOR
    return 0


def _run(work: Coroutine[Any, Any, None]) -> None:
    if importlib.util.find_spec("uvloop") is not None:
        import uvloop  # noqa: PLC0415  an extra that a plain installation lacks

        uvloop.run(work)
    else:
        asyncio.run(work)


async def _dispatch(settings: Settings, log: FilteringBoundLogger) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(THREADS_MAX, "dispatcher"))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    probe = failing_probe(settings.failpoints)
    bus = await Bus.connect(settings.nats, name="teatree-dispatcher", wait_ms=CONNECT_WAIT_MS, probe=probe)
    try:
        limits = settings.dispatcher
        await ensure_streams(
            bus,
            log_bytes_max=limits.log_bytes_max,
            notices_age_s=limits.notices_age_ms / 1000,
            notices_max=limits.notices_max,
        )
        store = GuardedStore(open_store(settings.store), Breaker("The object store", settings.breaker))
        await _probe(store, log)
        launcher = _launcher(settings)
        context = DispatcherContext(
            bus, built_in_functions(), log, limits, settings.limits, log_index=settings.data / LOG_INDEX
        )
        view = CatalogView(_catalog(settings), limits, log, settings.nats.prefix)
        dispatcher = Dispatcher(context, store, view, launcher)
        log.info("the dispatcher runs", prefix=settings.nats.prefix, managers=await _running(launcher))
        try:
            await dispatcher.run(stop)
        finally:
            await launcher.close()
        log.info("the dispatcher leaves; managers keep running", managers=await _running(launcher))
    finally:
        await bus.close()


def _launcher(settings: Settings) -> Launcher:
    """Return the launcher that a setting names; raises `wrong_configuration`."""
    where = variable_of("dispatcher", "launcher")
    name = settings.dispatcher.launcher
    launcher: Launcher = make_part(PartGroup.LAUNCHERS, name, Launcher, where, settings, process_environ())
    return launcher


async def _running(launcher: Launcher) -> list[str]:
    return sorted({run.model for run in await launcher.list() if run.exit is None})


async def _probe(store: ObjectStore, log: FilteringBoundLogger) -> None:
    """Check a new store; one that is unavailable or was never written to is checked by the first manager."""
    if not store.is_made():
        return
    try:
        await asyncio.to_thread(ensure_probed, store)
    except RetryError as e:
        log.warning("the object store was not checked", **e.to_dict())


def _catalog(settings: Settings) -> Catalog | None:
    if settings.postgres.url is None:
        return None
    from teatree.storage.catalog.catalog import Catalog  # noqa: PLC0415  psycopg takes a moment to load
    from teatree.storage.catalog.postgres import Postgres  # noqa: PLC0415

    return Catalog(Postgres(settings.postgres, application="teatree-dispatcher"))


def _logger() -> FilteringBoundLogger:
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
    )
    forward_events(structlog.get_logger())
    logger: FilteringBoundLogger = structlog.get_logger(part="dispatcher")
    return logger


if __name__ == "__main__":
    sys.exit(main())
