"""`python -m teatree_manager [MODEL]`: one manager process.

Without a model it is the dispatcher's spare: it loads its libraries and waits for one line of JSON on its standard
input: `model`, and `log`, the file to print to; it exits when the input ends.

Exit codes: 0 it left (idle, stopped, or its model was dropped), 75 another manager has the model, 78 an operator must
act, 79 a request does not end, 1 anything else; the dispatcher starts it again after all but 78, after 79 at once.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor

import structlog
from structlog.typing import FilteringBoundLogger

from teatree.contracts.clock import SYSTEM_CLOCK, Clock
from teatree.contracts.data_folder import check_data_folder
from teatree.contracts.environment import process_environ, read_settings
from teatree.contracts.errors import Code, FencedError, OperatorError, RequestError, RetryError
from teatree.contracts.exit_reason import EXIT_ELSEWHERE, EXIT_OPERATOR, reason_of, write_reason
from teatree.contracts.names import check_model
from teatree.functions.registry import Registry, built_in_functions
from teatree.storage.model_folder import model_folder
from teatree.storage.objects.base import ObjectStore
from teatree.storage.objects.stores import open_store
from teatree_manager.collector import collect_rarely
from teatree_manager.manager import Manager, preload
from teatree_manager.memory import limit_memory, started_threads
from teatree_manager.structured_log import configure_log
from teatree_manager.stuck import end_process

THREADS_MAX = 32
"""Threads for what blocks: followers, pages and workers of direct reads, and the lease, which must wait for none."""
EXIT_FAILED = 1
EXIT_USAGE = 64


def main(functions: Registry | None = None, clock: Clock = SYSTEM_CLOCK) -> int:
    """Run a manager; return its exit code. `functions` are those of its model, by default the built-in ones."""
    if len(sys.argv) > 2:
        sys.stderr.write("usage: python -m teatree_manager [MODEL]\n")
        return EXIT_USAGE
    store = _preload() if len(sys.argv) == 1 else None
    threads = started_threads(THREADS_MAX)  # before the model is known: this and the next take 60 ms
    collect_rarely()
    model = sys.argv[1] if len(sys.argv) > 1 else _wait_for_model()
    if not model:
        return 0
    configure_log()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # what functions of apps print stands in the log at once
    log = structlog.get_logger().bind(model=model)
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_run(check_model(model), store, threads, functions or built_in_functions(), clock))
    except Exception as e:  # noqa: BLE001  each has its exit code; the dispatcher reads its reason from a file
        _keep_reason(model, e)
        return _exit_code(e, log)
    log.info("left")
    return 0


def _exit_code(error: Exception, log: FilteringBoundLogger) -> int:
    match error:
        case FencedError():
            log.warning("leaving: another manager has the model", error=str(error))
            return EXIT_ELSEWHERE
        case RetryError():
            log.warning("leaving", error=str(error))
            return EXIT_ELSEWHERE if error.code is Code.BUSY else EXIT_FAILED
        case OperatorError():
            log.error("stopped: an operator must act", error=str(error))
            return EXIT_FAILED if error.code is Code.INTERNAL else EXIT_OPERATOR
        case RequestError():
            log.error("refused", error=str(error))
            return EXIT_USAGE
        case _:
            log.error("ended by a fault in Teatree", exc_info=error)
            return EXIT_FAILED


def _keep_reason(model: str, error: Exception) -> None:
    try:
        write_reason(model_folder(read_settings(process_environ()).data, model).last_exit, reason_of(error))
    except (OSError, OperatorError) as e:  # the dispatcher still gets the exit code
        structlog.get_logger().warning("the reason of this exit could not be written", error=str(e))


def _preload() -> ObjectStore | None:
    """Load what any model needs; return the store, None if it cannot be opened: a model's manager reports why."""
    preload()
    try:
        return open_store(read_settings(process_environ()).store)
    except Exception:  # noqa: BLE001  the model's manager opens it again and reports the error
        return None


def _wait_for_model() -> str:
    """Wait as a spare for a model; return it, "" if this process is not needed."""
    line = sys.stdin.readline()
    if not line:
        return ""
    order = json.loads(line)
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(log, stream.fileno())
    os.close(log)
    return str(order["model"])


async def _run(
    model: str, store: ObjectStore | None, threads: ThreadPoolExecutor, functions: Registry, clock: Clock
) -> None:
    settings = read_settings(process_environ())
    check_data_folder(settings.data)
    limit_memory(settings.manager.process_memory_bytes_max)
    manager = Manager(model, settings, store or open_store(settings.store), functions, clock=clock)
    loop = asyncio.get_running_loop()
    loop.set_default_executor(threads)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, manager.stop)
    await manager.run()


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415  an extra of servers
    except ImportError:
        return None
    return uvloop.Loop


if __name__ == "__main__":
    end_process(main())
