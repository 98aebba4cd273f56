"""Waiting for the end of a child process on an event loop, without polling."""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")


class ChildEnd(Generic[T]):
    """Calls back once, on the running event loop, when a child has ended; it does not read its exit code.

    The kernel's descriptor of a process becomes readable then; where there are none, a thread waits.
    """

    def __init__(self, child: subprocess.Popen[bytes], callback: Callable[[T], None], argument: T) -> None:
        self._loop = asyncio.get_running_loop()
        self._child = child
        self._callback = callback
        self._argument = argument
        self._stopped = False
        self._descriptor = _open(child.pid)
        if self._descriptor is None:
            threading.Thread(target=self._wait, name=f"child-{child.pid}", daemon=True).start()
        else:
            self._loop.add_reader(self._descriptor, self._ended)

    def stop(self) -> None:
        """Wait no longer: the callback is not called any more."""
        self._stopped = True
        if self._descriptor is not None:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None

    def _ended(self) -> None:
        if not self._stopped:
            self.stop()
            self._callback(self._argument)

    def _wait(self) -> None:
        self._child.wait()
        with suppress(RuntimeError):  # the event loop was closed meanwhile
            self._loop.call_soon_threadsafe(self._ended)


def _open(pid: int) -> int | None:
    """Return a descriptor of a process; None if the kernel has none, or none is free."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None
