"""Work of an app's package with a time limit: it runs on a separate thread, which is left behind if it does not end."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from teatree.functions.app.user_traceback import user_stack

T = TypeVar("T")


class StillRunningError(Exception):
    """The work has not ended in time; `stack` is where the user's code is."""

    def __init__(self, stack: str) -> None:
        super().__init__(stack)
        self.stack = stack


class WorkError(Exception):
    """The work raised `error`, which can be a SystemExit, too."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


class TimedWork(Generic[T]):
    """Runs once, on a thread."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._result: list[T] = []
        self._error: BaseException | None = None

    def run(self, ms_max: int) -> T:
        """Return what the work returns; raises WorkError, or StillRunningError after `ms_max`."""
        thread = threading.Thread(target=self._run, name="app", daemon=True)  # a process ends without waiting for it
        thread.start()
        thread.join(ms_max / 1000)
        if thread.is_alive():
            frame = sys._current_frames().get(thread.ident or 0)  # noqa: SLF001  the documented way to a thread's stack
            raise StillRunningError(user_stack(frame) if frame is not None else "")
        if self._error is not None:
            raise WorkError(self._error)
        return self._result[0]

    def _run(self) -> None:
        try:
            self._result.append(self._work())
        except BaseException as e:  # noqa: BLE001  the caller decides
            self._error = e
