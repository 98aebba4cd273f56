"""A client's connection: to NATS while it is open, to the object store when first used; which versions it has seen."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import orjson

from teatree.contracts.clock import SYSTEM_CLOCK, Clock
from teatree.contracts.environment import user_name
from teatree.contracts.errors import Code, RequestError, RetryError
from teatree.contracts.failpoints import failing_probe
from teatree.contracts.names import sender_name
from teatree.contracts.probe import Listener
from teatree.contracts.settings import Settings
from teatree.messaging.bus import Bus
from teatree.storage.objects.base import ObjectStore
from teatree.storage.objects.stores import open_store


class Connection:
    """A connection to an installation; members that need NATS raise `unavailable` while it is not open."""

    def __init__(
        self,
        settings: Settings,
        *,
        name: str = "teatree-client",
        wait_ms: int = 0,
        listeners: Sequence[Listener] = (),
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """Open nothing yet; `listeners` receive the points of what is done over this connection."""
        self.settings = settings
        self.clock = clock
        self.probe = failing_probe(settings.failpoints, listeners)
        """Where what uses this connection reports its points."""
        self.sender = settings.nats.sender or sender_name(user_name())
        """Who its requests are from: the last token of their subjects."""
        self._name = name
        self._wait_ms = wait_ms
        self._bus: Bus | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._store: ObjectStore | None = None
        self._versions: dict[str, int] = {}

    async def open(self) -> None:
        """Connect to NATS; `async with` does this."""
        if self._bus is None:
            self._loop = asyncio.get_running_loop()
            self._bus = await Bus.connect(
                self.settings.nats, name=self._name, wait_ms=self._wait_ms, probe=self.probe, clock=self.clock
            )

    async def close(self) -> None:
        """Flush pending messages, and disconnect."""
        bus, self._bus = self._bus, None
        if bus is not None:
            await bus.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def bus(self) -> Bus:
        """The connection to NATS."""
        if self._bus is None:
            raise RetryError(
                Code.UNAVAILABLE, "The session is not open.", hint="Use `async with connect() as session`."
            )
        if asyncio.get_running_loop() is not self._loop:
            raise RequestError(
                Code.USAGE,
                "The session was opened in another event loop, or before a fork.",
                where="session",
                hint="Open one in each event loop; `connect_sync` gives one that threads can share.",
            )
        return self._bus

    @property
    def store(self) -> ObjectStore:
        """The object store; needs no open session."""
        if self._store is None:
            self._store = open_store(self.settings.store)
        return self._store

    def saw(self, model: str, version: int | None) -> None:
        """Note the version of a received outcome: later reads in this session see its effect."""
        if version is not None:
            self._versions[model] = max(version, self._versions.get(model, 0))

    def seen_version(self, model: str) -> int | None:
        """Return the newest version of a model whose outcomes this session has received."""
        return self._versions.get(model)

    async def read_object(self, key: str) -> bytes:
        """Return an object of the store: a page of a result, a long list of refusals."""
        return await asyncio.to_thread(lambda: self.store.get(key))

    async def read_json_object(self, key: str) -> Any:
        """Return an object of the store that is JSON."""
        return orjson.loads(await self.read_object(key))
