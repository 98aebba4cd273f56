"""Holds on direct reads: statements and clients whose reads had to be killed several times within a while are refused.

A statement is held off sooner than a client, so that one bad statement does not cost a client its others. Each further
kill doubles the time; a refused read does not count. Pure: the clock is passed in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import timedelta

from attrs import define, field
from cachetools import LRUCache

from teatree.contracts.clock import SYSTEM_CLOCK, Clock
from teatree.contracts.errors import Code, RetryError
from teatree.contracts.formats.codec import utc_text
from teatree.contracts.read_settings import ReadSettings

REMEMBERED_MAX = 10_000
"""Statements and clients remembered, the newest ones."""


@define
class _Record:
    kills_ms: list[float] = field(factory=list)
    held_until_ms: float = 0


class ReadHolds:
    """The kills and holds of one model's direct reads."""

    def __init__(self, settings: ReadSettings, clock: Clock = SYSTEM_CLOCK) -> None:
        self._settings = settings
        self._clock = clock
        self._records: LRUCache[tuple[str, bytes], _Record] = LRUCache(REMEMBERED_MAX)

    def check(self, client: str, statement: str, now_ms: float) -> None:
        """Raise `held_off` while a statement or a client is held off."""
        if not self._records:
            return
        for kind, key in _keys(client, statement):
            record = self._records.get((kind, key))
            if record is not None and now_ms < record.held_until_ms:
                wait_ms = record.held_until_ms - now_ms
                until = utc_text(self._clock.now() + timedelta(milliseconds=wait_ms))
                raise RetryError(
                    Code.HELD_OFF,
                    f"{len(record.kills_ms)} reads of this {kind} had to be killed; it is held off until {until}.",
                    where="sql",
                    hint="Ask for less at once: the read could not be interrupted, or ended its process.",
                )

    def killed(self, client: str, statement: str, now_ms: float) -> None:
        """Count that a read had to be killed, or killed its process."""
        settings = self._settings
        for kind, key in _keys(client, statement):
            record = self._records.pop((kind, key), None) or _Record()
            record.kills_ms = [at for at in record.kills_ms if now_ms - at < settings.kills_window_ms] + [now_ms]
            kills_max = settings.statement_kills_max if kind == "statement" else settings.client_kills_max
            beyond = len(record.kills_ms) - kills_max
            if beyond >= 0:
                record.held_until_ms = now_ms + min(settings.hold_ms_max, settings.hold_ms_min * 2 ** min(beyond, 30))
            self._records[kind, key] = record


def _keys(client: str, statement: str) -> Iterable[tuple[str, bytes]]:
    yield "statement", hashlib.sha256(statement.encode("utf-8", "surrogatepass")).digest()
    yield "client", client.encode("utf-8", "surrogatepass")
