"""Running a command's coroutine with a session."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import unquote

from teatree.cli.exits import usage
from teatree.cli.options import SenderCommon, StoreCommon

if TYPE_CHECKING:
    from teatree.cli.options import Common
    from teatree.client.session import Session

T = TypeVar("T")
WAIT_MS = 2_000
"""How long a command retries connecting to NATS."""


def with_session(common: Common, work: Callable[[Session], Awaitable[T]]) -> T:
    """Connect, do the work, disconnect; return what it returned."""
    from teatree.client.session import connect  # noqa: PLC0415 - NATS, only for commands that use it

    async def main() -> T:
        sender = common.sender if isinstance(common, SenderCommon) else None
        async with connect(data=common.data, sender=sender, name="teatree-cli", wait_ms=WAIT_MS) as session:
            return await work(session)

    return asyncio.run(main())


def with_store(common: Common, work: Callable[[Session], Awaitable[T]]) -> T:
    """Do work that needs only the object store or PostgreSQL, not NATS."""
    from teatree.client.session import connect  # noqa: PLC0415

    async def main() -> T:
        store = _store(common) if isinstance(common, StoreCommon) else None
        return await work(connect(data=common.data, store=store))

    return asyncio.run(main())


def store_session(common: StoreCommon) -> Session:
    """Return a session for work that needs only the object store and no event loop, so that Ctrl-C ends it as usual."""
    from teatree.client.session import connect  # noqa: PLC0415

    return connect(data=common.data, store=_store(common))


def _store(common: StoreCommon) -> str | None:
    """Return the given store; raises `usage` for a missing folder, which would look like an empty store."""
    store = common.store
    if store is None or not ("://" not in store or store.startswith("file:///")):
        return store
    folder = Path(unquote(store.removeprefix("file://")) if "://" in store else store)
    if not folder.is_dir():
        raise usage(f"There is no folder {str(folder)!r}.", "Name the folder of an object store with --store.")
    return store
