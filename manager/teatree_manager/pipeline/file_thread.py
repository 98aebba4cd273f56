"""The one thread that works on a model's read-write file."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from typing import TypeVar

from teatree.engine.writer import Writer
from teatree.storage.disk import translating_disk_full

T = TypeVar("T")
CLOSE_MS_MAX = 20_000
"""Milliseconds that work on the file may take to end when its manager leaves."""


class FileThread:
    """Runs work on the file, one call at a time."""

    def __init__(self, folder: Path) -> None:
        """`folder` is the model's, which errors name."""
        self._folder = folder
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="file")

    async def run(self, work: Callable[..., T], *arguments: object) -> T:
        """Run work on the thread; raises `disk_full` or `unavailable` if the disk refuses it."""

        def translated() -> T:
            with translating_disk_full("The model's folder", self._folder):
                return work(*arguments)

        run = copy_context().run  # the steps within it belong to the one that calls
        return await asyncio.get_running_loop().run_in_executor(self._thread, run, translated)

    def close(self, writer: Writer, wait_ms_max: int = CLOSE_MS_MAX) -> None:
        """Close the writer's file and end the thread; work that still runs on the file is interrupted.

        Raises TimeoutError when that had no effect: a thread cannot be ended, only the process.
        """
        writer.leave()
        self._thread.submit(writer.close).result(wait_ms_max / 1000)
        self._thread.shutdown()
