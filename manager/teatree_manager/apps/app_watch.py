"""Notices that other code of the model's app is installed than its manager has loaded: the next manager loads that."""

from __future__ import annotations

import asyncio

import structlog

from teatree.contracts.clock import Clock
from teatree.engine.writer import Writer
from teatree_manager.read_workers.app_call import OtherCodeError

LOOK_S = 0.5
"""Seconds between two looks at the files of an app that is being developed."""


class AppWatch:
    """Watches the app of one model."""

    def __init__(self, writer: Writer, clock: Clock) -> None:
        self._writer = writer
        self._clock = clock
        self._changed = asyncio.Event()

    def found(self, other: OtherCodeError) -> None:
        """Take the version that a read worker has loaded; under the same version code may not change."""
        loaded = self._writer.app
        code = None if loaded is None else loaded.code
        if code is not None and code.name == other.name and code.version != other.version:
            self._changed.set()

    async def until_changed(self) -> None:
        """Wait until the manager is to leave for newer code."""
        if self._writer.context.apps.may_change:
            await self._until_files_change()
        else:
            await self._changed.wait()
        structlog.get_logger().info("leaving: the code of the model's app has changed")

    async def _until_files_change(self) -> None:
        found: str | None = None
        while True:
            await self._clock.sleep_async(LOOK_S)
            before, found = found, await asyncio.to_thread(self._other_code)
            if found is not None and found == before:  # else files are being written
                return

    def _other_code(self) -> str | None:
        """Return the hash of the installed code if it is not that which was loaded."""
        loaded = self._writer.app
        if loaded is None:
            return None
        found = self._writer.context.apps.installed_hash(loaded.name) or ""
        return found if found != (loaded.code.code_hash if loaded.code else "") else None
