"""How manifests and outcomes become rows of the catalog."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

from attrs import evolve
from blake3 import blake3

from teatree.contracts.formats.manifest import (
    Extent,
    FileLayout,
    Manifest,
    ManifestKind,
    ModelState,
    ObjectRef,
    StreamStamp,
    TableEntry,
)
from teatree.contracts.formats.notices import Outcome, Status
from teatree.contracts.types.schema import Field, Schema, parse_dtype
from teatree.storage.catalog.rows import (
    ContentKind,
    RequestState,
    content_rows,
    model_columns,
    page_rows,
    parquet_row,
    request_rows,
    version_row,
)
from teatree.storage.objects.base import object_uri

MODEL = uuid.UUID(int=1)
NOW = datetime(2026, 3, 4, 5, 6, 7, 8, tzinfo=UTC)
STORE = "s3://bucket/a?endpoint=http://host:1"
FOLDER = f"s3://bucket/a/models/{MODEL}"


def _manifest(**changes: Any) -> Manifest:
    manifest = Manifest(
        model="sales",
        goal_model_id=str(MODEL),
        version=3,
        write_id="00",
        parent_write_id="11",
        kind=ManifestKind.BATCH,
        epoch=1,
        state=ModelState.ACTIVE,
        at=NOW,
        log_at=NOW,
        offset=30,
        stream=StreamStamp("REQUESTS", "2026"),
        content_version=3,
        content_write_id="00",
        user_version=3,
        last_effect_seq=30,
        announced_version=2,
        content=FileLayout(12_288, 262_144, 0, Extent("p", 0, 1, "c"), (), ("b",)),
        tables=(TableEntry("sales", Schema((Field("id", parse_dtype("BIGINT"), nullable=False),)), 7, ("id",), 3),),
        pack=ObjectRef("packs/3", 100, "aa"),
        outcomes=ObjectRef("outcomes/3", 50, "bb", rows=2),
        changed_tables=("sales",),
    )
    return evolve(manifest, **changes)


def _outcome(**changes: Any) -> Outcome:
    return evolve(Outcome(30, "r1", "append", b"", Status.DONE, NOW, result={"rows": 1}, group="g"), **changes)


def test_a_version_has_the_numbers_of_its_manifest() -> None:
    """Model and version rows hold the manifest's numbers and its tables' columns."""
    facts = model_columns(_manifest(), STORE)
    assert (facts.goal_model_id, facts.name, facts.version, facts.applied_offset) == (MODEL, "sales", 3, 30)
    assert (facts.lifecycle, facts.size_bytes, facts.store_url) == ("active", 12_288, STORE)
    assert facts.tables[0]["columns"] == [{"name": "id", "type": "BIGINT", "nullable": False}]
    row = version_row(_manifest())
    assert (row.version, row.pack_bytes, row.requests, row.changed_tables) == (3, 100, 2, ("sales",))


def test_objects_are_rows_with_their_uris() -> None:
    """Each object of a version is a row with its URI, size and hash; the snapshot's row has its manifest's."""
    snapshot, pack, outcomes = content_rows(_manifest(), STORE)
    body = _manifest().to_json()
    assert (snapshot.kind, snapshot.uri) == (ContentKind.SNAPSHOT, f"{FOLDER}/manifests/{3:020}")
    assert (snapshot.bytes, snapshot.checksum, snapshot.rows) == (len(body), blake3(body).hexdigest(), 7)
    assert (pack.kind, pack.uri, pack.bytes, pack.checksum) == (ContentKind.PACK, f"{FOLDER}/packs/3", 100, "aa")
    assert (outcomes.kind, outcomes.rows) == (ContentKind.OUTCOMES, 2)
    archive = parquet_row(_manifest(), "sales", ObjectRef("archive/3/sales.parquet", 9, "cc", 7), STORE)
    assert (archive.table_name, archive.uri) == ("sales", f"{FOLDER}/archive/3/sales.parquet")


def test_a_fence_adds_no_objects() -> None:
    """A fence repeats its predecessor's content, which has its rows already."""
    assert content_rows(_manifest(kind=ManifestKind.FENCE, pack=None, outcomes=None), STORE) == []


def test_outcomes_become_requests_and_pages() -> None:
    """The row of a request has the version that holds it; the pages of its result are objects."""
    page = {"ref": "pages/3/r2/1", "rows": 4, "bytes": 40, "format": "arrow", "checksum": "dd"}
    refused = _outcome(request_id="r2", status=Status.REJECTED, result=None, error={"code": "bad_sql"}, pages=(page,))
    done, rejected = request_rows(_manifest(), [_outcome(), refused])
    assert (done.state, done.version, done.result, done.group_id) == (RequestState.DONE, 3, {"rows": 1}, "g")
    assert (done.accepted_at, done.finished_at) == (NOW, NOW)
    assert (rejected.state, rejected.error) == (RequestState.REJECTED, {"code": "bad_sql"})
    (stored,) = page_rows(_manifest(), [_outcome(), refused], STORE)
    assert (stored.uri, stored.rows, stored.checksum) == (f"{FOLDER}/pages/3/r2/1", 4, "dd")


def test_uris_have_no_connection_options() -> None:
    """A URI names the object alone: no options of the connection; in a file URL signs are encoded."""
    assert object_uri("s3://b?endpoint=http://x", "a b") == "s3://b/a b"
    assert object_uri("file:///a%20b/", "c d#e") == "file:///a%20b/c%20d%23e"
