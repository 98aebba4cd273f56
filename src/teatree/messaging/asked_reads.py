"""Pending direct reads: which are repeats, which were given up, and which exceed the limits.

A client that repeats a read while it waits sends the same request id with it, and the interval of its repeats
(`Teatree-Repeat-Ms`). A repeat joins the read that it repeats, and the answer goes to the newest reply subject. A
client that missed some repeats has given up. One that sends no interval sends once: its read runs to its own limits.
Pure: the clock is passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import define, field

from teatree.contracts.formats.requests import HEADER_REPEAT_MS, HEADER_REQUEST_ID
from teatree.contracts.read_settings import ReadSettings

REPEAT_MS_MIN, REPEAT_MS_MAX = 100, 60_000
"""Intervals that a client may announce."""


@define(eq=False)
class AskedRead:
    """One direct read, however often it was sent."""

    function: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    reply: str
    """Where the answer goes: the newest copy's reply subject."""
    asked_ms: float
    """When the newest copy came."""
    cancel: Callable[[], object] = field(default=lambda: None, repr=False)
    """Ends the work on it."""

    @property
    def client(self) -> str:
        """The client: the part of the reply subject that all requests of one connection share."""
        return client_of(self.reply)

    @property
    def request_id(self) -> str | None:
        """The id under which it is repeated."""
        return self.headers.get(HEADER_REQUEST_ID)

    @property
    def repeat_ms(self) -> int:
        """The interval at which it is repeated, 0 if it is not."""
        text = self.headers.get(HEADER_REPEAT_MS, "")
        interval_ms = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
        return interval_ms if REPEAT_MS_MIN <= interval_ms <= REPEAT_MS_MAX else 0


class AskedReads:
    """The reads of one model that wait or run."""

    def __init__(self, settings: ReadSettings) -> None:
        self._settings = settings
        self._by_client: dict[str, list[AskedRead]] = {}
        self._count = 0
        self._bytes = 0

    def __len__(self) -> int:
        return self._count

    def repeated(self, read: AskedRead) -> bool:
        """Return whether a read is a copy of an earlier one, which is then answered in its place."""
        known = self.find(read.client, read.request_id)
        if known is None or (known.function, known.body) != (read.function, read.body):
            return False
        known.reply, known.asked_ms = read.reply, read.asked_ms
        return True

    def find(self, client: str, request_id: str | None) -> AskedRead | None:
        """Return a client's read by its id."""
        if request_id is None:
            return None
        return next((read for read in self._by_client.get(client, ()) if read.request_id == request_id), None)

    def crowded_out(self, read: AskedRead) -> AskedRead | None:
        """Return which read must be refused so that this one can be added, itself perhaps; None if there is room.

        That is the newest read of the client that has most.
        """
        bytes_after = self._bytes + len(read.body)
        if self._count < self._settings.waiting_max and bytes_after <= self._settings.waiting_bytes_max:
            return None
        most = max(self._by_client.values(), key=len, default=[])
        own = self._by_client.get(read.client, ())
        return most[-1] if len(most) > len(own) + 1 else read

    def add(self, read: AskedRead) -> None:
        """Add a read."""
        self._by_client.setdefault(read.client, []).append(read)
        self._count += 1
        self._bytes += len(read.body)

    def remove(self, read: AskedRead) -> None:
        """Remove a read that was answered or given up."""
        reads = self._by_client.get(read.client, [])
        if read in reads:
            reads.remove(read)
            self._count -= 1
            self._bytes -= len(read.body)
            if not reads:
                del self._by_client[read.client]

    def given_up(self, now_ms: float) -> list[AskedRead]:
        """Return the reads whose clients do not repeat them any more."""
        repeats, silent_ms = self._settings.silent_repeats_max + 1, self._settings.silent_ms_min
        return [
            read
            for reads in self._by_client.values()
            for read in reads
            if read.repeat_ms and now_ms - read.asked_ms > max(silent_ms, repeats * read.repeat_ms)
        ]


def client_of(reply: str) -> str:
    """Return what all reply subjects of one connection have in common: all tokens but the last."""
    head, _, tail = reply.rpartition(".")
    return head or tail
