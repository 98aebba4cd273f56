"""Background tasks of a manager: they run as long as its main work."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Self


class Background:
    """Tasks that run beside the main one; the first to fail ends it."""

    def __init__(self, work: list[Coroutine[Any, Any, None]]) -> None:
        self._tasks = [asyncio.create_task(w) for w in work]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def until(self, main: Coroutine[Any, Any, None]) -> None:
        """Run `main` to its end; raises what it or a task beside it raised."""
        running = asyncio.create_task(main)
        waiting: set[asyncio.Task[None]] = {running, *self._tasks}
        try:
            while not running.done():
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        finally:
            if not running.done():
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
