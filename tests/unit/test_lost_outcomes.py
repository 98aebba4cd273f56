"""A version that is damaged in the store stops no model: only requests that need it fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from one_writer import OneWriter, Sent
from published import PublishedModel
from teatree.contracts.formats.notices import Status
from teatree.contracts.settings import StoreSettings
from teatree.engine.apply.ledger import SEGMENTS_CACHED, LostOutcome
from teatree.storage.ledger.segments import read_segment

TABLE = {"table": "t", "columns": [{"name": "id", "type": "BIGINT"}], "primary_key": ["id"]}
FIRST = Sent("append", {"table": "t", "rows": [{"id": 1}]}, {"Teatree-Request-Id": "first"})


@pytest.fixture
def model(tmp_path: Path) -> OneWriter:
    """Return a model whose first request's outcome is not in memory any more."""
    writer = OneWriter(tmp_path, [TABLE])
    writer.apply(FIRST)
    for number in range(SEGMENTS_CACHED + 1):
        writer.apply(Sent("append", {"table": "t", "rows": [{"id": 100 + number}]}))
    return writer


@pytest.mark.parametrize("damage", ["manifest", "outcomes", "flipped"])
def test_a_resend_whose_outcome_is_lost(model: OneWriter, damage: str) -> None:
    """A resend fails with the damaged object and has no second effect; after the repair it has its outcome."""
    version = next(v for v in range(1, 9) if "first" in _ids(model, v))
    manifest = model.chain.get(version)
    assert manifest.outcomes is not None
    key = model.chain.manifest_key(version) if damage == "manifest" else model.chain.key(manifest.outcomes.key)
    body = model.chain.store.get(key)
    if damage == "flipped":
        model.chain.store.put(key, body[:-1] + bytes([body[-1] ^ 1]))
    else:
        model.chain.store.delete([key])
    outcome = model.between(FIRST)
    assert outcome.status is Status.FAILED
    assert outcome.error is not None
    assert outcome.error["code"] == "corrupt"
    assert f"version {version}" in outcome.error["message"]
    model.chain.store.put(key, body)
    again = model.between(FIRST)
    assert again.status is Status.DONE
    assert model.rows("SELECT count(*) AS n FROM t WHERE id = 1") == [{"n": 1}]
    model.close()


@pytest.mark.filterwarnings("ignore::teatree.contracts.errors.DamageWarning")
def test_an_expected_version_that_vanished(file_store: StoreSettings, tmp_path: Path) -> None:
    """A manager that takes over after a missing version has all ids; a request that expects it is rejected."""
    with PublishedModel(file_store, tmp_path) as made:
        made.create({"t": {"id": "BIGINT"}})
        sent = [made.send("append", {"table": "t", "rows": [{"id": number}]}) for number in range(4)]
        (vanished,) = [outcome.request_id for outcome, manifest in sent if manifest.version == 3]
    made.chain.store.delete([made.chain.manifest_key(3)])
    with PublishedModel(file_store, tmp_path) as model:
        outcome, _ = model.send("append", {"table": "t", "rows": [{"id": 7}], "expected_version": 3})
        assert outcome.error is not None
        assert (outcome.error["code"], outcome.error["where"]) == ("bad_source", "expected_version")
        model.request("append", {"table": "t", "rows": [{"id": 8}]})
        lost = model.writer.ledger.find([vanished])[vanished]
        assert isinstance(lost, LostOutcome)
        assert lost.version == 3


def _ids(model: OneWriter, version: int) -> list[str]:
    entry = model.chain.entry(version)
    return [e.outcome.request_id for e in read_segment(model.chain.store, model.chain.folder, entry)]
