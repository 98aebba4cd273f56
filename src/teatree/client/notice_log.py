"""Reading notices from their stream: every one on a filter, in order, across lost connections.

What arrives live is only a hint that there is something to read: core NATS repeats nothing, the stream does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING

from teatree.client.notice import Notice, read_notice
from teatree.contracts.errors import Code, RetryError
from teatree.messaging.notices import read_notices

if TYPE_CHECKING:
    from teatree.messaging.bus import Bus
    from teatree.messaging.direct import StoredMessage
    from teatree.messaging.message import Subscription

BATCH_MAX = 500
"""Notices asked for at once."""
IDLE_MS = 5_000
"""Longest wait for a hint before the stream is read all the same."""
AFTER_HINT_MS = (0, 1, 4, 20, 100)
"""Waits between reads after a hint: subscribers can hear a message before the stream has stored it."""
RETRY_MS = 500
HINTS_PENDING_MAX = 1_000


async def notices_end(bus: Bus) -> int:
    """Return the sequence of the newest notice of all models."""
    info = await bus.js(f"STREAM.INFO.{bus.subjects.notices_stream}")
    return int(info["state"]["last_seq"])


async def read_from(bus: Bus, subject_filter: str, after: int) -> AsyncGenerator[StoredMessage, None]:
    """Yield the notices on a filter that the stream holds beyond a sequence, then end."""
    position = after
    while messages := await read_notices(bus, subject_filter, after=position, count_max=BATCH_MAX):
        for message in messages:
            position = message.seq
            yield message


async def follow_notices(bus: Bus, subject_filter: str, after: int | None = None) -> AsyncGenerator[Notice, None]:
    """Yield every notice on a filter, for ever: those beyond `after` (None: from now on), then new ones as they come.

    While NATS is away it waits. A notice that the stream dropped by its limits before it was read is lost.
    """
    hints = await bus.subscribe(subject_filter, pending_max=HINTS_PENDING_MAX)
    try:
        position = await _start(bus, after)
        hinted = True
        while True:
            found = 0
            for wait_ms in AFTER_HINT_MS if hinted else (0,):
                await asyncio.sleep(wait_ms / 1000)
                async with aclosing(_read_patiently(bus, subject_filter, position)) as messages:
                    async for message in messages:
                        found += 1
                        position = message.seq
                        yield read_notice(message.subject, message.headers, message.body)
                if found:
                    break
            hinted = await _hint(hints)
            if not hinted:
                position = await _check_position(bus, position)
    finally:
        await hints.close()


async def _start(bus: Bus, after: int | None) -> int:
    if after is not None:
        return after
    while True:
        try:
            return await notices_end(bus)
        except RetryError:
            await asyncio.sleep(RETRY_MS / 1000)


async def _read_patiently(bus: Bus, subject_filter: str, after: int) -> AsyncGenerator[StoredMessage, None]:
    position = after
    while True:
        try:
            async for message in read_from(bus, subject_filter, position):
                position = message.seq
                yield message
        except RetryError:
            await asyncio.sleep(RETRY_MS / 1000)
        else:
            return


async def _hint(hints: Subscription) -> bool:
    """Wait until something may have come; return False after a long silence."""
    try:
        await hints.next(IDLE_MS)
        while hints.pop() is not None:
            pass
    except RetryError as e:
        return e.code is not Code.TIMED_OUT  # dropped hints and a lost connection both mean: read
    return True


async def _check_position(bus: Bus, position: int) -> int:
    """Return where to read on: from the start if the stream was made anew, with smaller numbers."""
    try:
        return position if await notices_end(bus) >= position else 0
    except RetryError:
        return position
