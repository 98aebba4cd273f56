"""Interrupts of the jobs of a read worker: a thread that reads from the manager which job to interrupt."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from teatree_manager.read_workers.frames import NUMBER

INTERRUPT_EVERY_S = 0.05
"""An interrupt between two statements is lost, so it is repeated until the job ends."""


class Interrupts:
    """A thread that reads from the manager while a job runs: which job to interrupt, and its own end."""

    def __init__(self, control: int) -> None:
        """`control` is a pipe's descriptor: it carries numbers of jobs, and ends when the manager does."""
        self._control = control
        self._lock = threading.Lock()
        self._number: int | None = None
        self._interrupt: Callable[[], None] = lambda: None
        threading.Thread(target=self._listen, name="interrupts", daemon=True).start()

    @contextmanager
    def during(self, number: int, interrupt: Callable[[], None]) -> Iterator[None]:
        """Call `interrupt`, from another thread, if the manager wants this job interrupted."""
        with self._lock:
            self._number, self._interrupt = number, interrupt
        try:
            yield
        finally:
            with self._lock:
                self._number = None

    def _listen(self) -> None:
        number = None
        while True:
            ready = number is None or select.select([self._control], [], [], INTERRUPT_EVERY_S)[0]
            if ready:
                raw = os.read(self._control, NUMBER.size)
                if not raw:
                    os._exit(0)
                (number,) = NUMBER.unpack(raw)
            with self._lock:
                if number == self._number:
                    self._interrupt()
                else:
                    number = None
