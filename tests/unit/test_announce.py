"""Notices of a version where the server accepts only short messages."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import attrs

from published import LIMITS, PublishedModel
from teatree.client.notice import read_notice, whole_notice
from teatree.contracts.formats.notices import Kind, NoticeMessage, Outcome, Status
from teatree.contracts.settings import StoreSettings
from teatree.engine.publish.announce import Announcer
from teatree.functions.registry import built_in_functions
from teatree.messaging.subjects import Subjects
from teatree.storage.ledger.segments import Entry

PAYLOAD_BYTES_MAX = 65_536
LONG = ["x" * 1_000] * 100


async def test_a_result_longer_than_the_server_takes(tmp_path: Path) -> None:
    """A `done` notice that is too long refers to an object with its result; a subscriber gets the whole result."""
    with PublishedModel(StoreSettings(url=(tmp_path / "store").as_uri()), tmp_path) as model:
        manifest = model.create({"t": {"id": "BIGINT"}})
        store = model.chain.store
        outcome = Outcome(7, "r7", "archive", b"", Status.DONE, datetime(2026, 1, 1, tzinfo=UTC), result=LONG)
        limits = attrs.evolve(LIMITS, page_bytes_max=10_000_000)

        def messages(payload_bytes_max: int) -> list[NoticeMessage]:
            announcer = Announcer(
                model.chain, Subjects("teatree"), limits, built_in_functions(), lambda: payload_bytes_max
            )
            return announcer.messages(manifest, [Entry(outcome)], late=True)

        made = [messages(PAYLOAD_BYTES_MAX), messages(PAYLOAD_BYTES_MAX), messages(8_000_000)]
    short, again, long = (read_notice(subject, headers, body) for ((subject, body, headers),) in made)
    assert made[0] == made[1]
    assert len(made[0][0][1]) < 1_000
    assert "result" not in json.loads(made[0][0][1])

    async def read_object(key: str) -> bytes:
        return store.get(key)

    assert (short.kind, short.seq, short.result) == (Kind.DONE, 7, None)
    assert await whole_notice(short, read_object) == await whole_notice(again, read_object) == long
    assert long.result == LONG
