"""Ending a manager though a thread does not end: its file thread, or one of an app. Only a process can be ended.

The kernel releases the locks of the process, and a successor on this host proves the lease's holder dead.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from typing import NoReturn

from structlog.typing import FilteringBoundLogger

from teatree.contracts.exit_reason import EXIT_STUCK
from teatree.contracts.formats.requests import Request
from teatree_manager.pipeline.crash_tracker import CrashTracker
from teatree_manager.pipeline.running_place import running_place

EXIT_HUNG = 1


def end_over(requests: Sequence[Request], crash_tracker: CrashTracker, log: FilteringBoundLogger) -> NoReturn:
    """End this process because requests that run together do not end; `crash_tracker` notes which."""
    try:
        log.error("ending: a request does not end", first_seq=requests[0].seq, count=len(requests))
        crash_tracker.note_stuck(requests, running_place())
    except OSError as e:  # then it counts as a crash over the whole batch
        log.error("the request that does not end could not be noted", error=str(e))  # noqa: TRY400
    finally:
        os._exit(EXIT_STUCK)


def end_hung(log: FilteringBoundLogger) -> NoReturn:
    """End this process because work on its file does not end."""
    try:
        log.error("ending: work on the file does not end")
    finally:
        os._exit(EXIT_HUNG)


def end_process(code: int) -> NoReturn:
    """End this process, whose work is done, though functions of an app may have left threads: Python waits for them."""
    left = [thread.name for thread in threading.enumerate() if not (thread.daemon or thread is threading.main_thread())]
    if not left:
        sys.exit(code)
    try:
        sys.stdout.flush()
        sys.stderr.write(f"ending beside threads that an app left: {', '.join(left)}\n")
        sys.stderr.flush()
    finally:
        os._exit(code)
