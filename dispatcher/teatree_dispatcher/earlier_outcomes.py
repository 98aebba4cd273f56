"""Outcomes of a model's ended incarnations: a resend after them gets its first outcome again."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from attrs import frozen

from teatree.contracts.formats.notices import NoticeMessage, Outcome
from teatree.contracts.settings import LimitSettings
from teatree.engine.apply.ledger import EarlierOutcome, Ledger
from teatree.engine.publish.announce import Announcer
from teatree.functions.registry import Registry
from teatree.messaging.subjects import Subjects
from teatree.storage.objects.base import ObjectStore
from teatree.storage.versions.chain import Chain


@frozen
class PublishedOutcome:
    """The first outcome of an id, and the notices that publish it."""

    outcome: Outcome
    messages: Sequence[NoticeMessage]


class EarlierOutcomes:
    """Finds first outcomes in the ledgers of models; blocking work runs on threads."""

    def __init__(
        self,
        store: ObjectStore,
        subjects: Subjects,
        limits: LimitSettings,
        functions: Registry,
        payload_bytes_max: Callable[[], int],
    ) -> None:
        """`limits` are those of the managers: how long ids are remembered, how large inline pages are.

        `payload_bytes_max` returns what the server currently accepts in one message.
        """
        self._payload_bytes_max = payload_bytes_max
        self._store = store
        self._subjects = subjects
        self._limits = limits
        self._functions = functions

    async def find(self, model: str, request_ids: Sequence[str]) -> dict[str, PublishedOutcome]:
        """Return the first outcomes of these ids; none of a model that never existed."""
        return await asyncio.to_thread(self._find, model, list(request_ids)) if request_ids else {}

    def _find(self, model: str, request_ids: list[str]) -> dict[str, PublishedOutcome]:
        chain = Chain(self._store, self._subjects.prefix, model)
        newest = chain.newest()
        if newest is None:
            return {}
        announcer = Announcer(chain, self._subjects, self._limits, self._functions, self._payload_bytes_max)
        with tempfile.TemporaryDirectory(prefix="teatree-ledger-") as cache:
            ledger = Ledger(chain, Path(cache), self._limits)
            try:
                ledger.load(newest)
                found = ledger.find(request_ids)
            finally:
                ledger.close()
            return {
                name: PublishedOutcome(earlier.entry.outcome, announcer.again(earlier.entry, earlier.version))
                for name, earlier in found.items()
                if isinstance(earlier, EarlierOutcome) and earlier.version is not None
            }
