"""What is stored keeps every member through its format, and holds none that has no value."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import orjson
import pyarrow as pa
import pytest
from blake3 import blake3
from hypothesis import example, given, settings
from hypothesis import strategies as st

from teatree.contracts.errors import CorruptError
from teatree.contracts.formats.codec import dump_json
from teatree.contracts.formats.manifest import (
    ContentPart,
    Extent,
    FileLayout,
    ForkPoint,
    Incarnation,
    LedgerRef,
    Manifest,
    ManifestKind,
    ModelOptions,
    ModelState,
    ObjectRef,
    PartFiles,
    StreamStamp,
    TableEntry,
    read_entry,
    read_manifest,
    stub_of,
)
from teatree.contracts.formats.notices import Kind, Outcome, Status, notice_about
from teatree.contracts.formats.provenance import AppCode, VersionRead
from teatree.contracts.formats.requests import Request
from teatree.contracts.formats.traceparent import is_sampled, read_traceparent
from teatree.contracts.names import ANONYMOUS
from teatree.contracts.settings import LimitSettings
from teatree.contracts.types.schema import Field, Schema, parse_dtype
from teatree.engine.commits import Commit, Identity
from teatree.engine.duckdb.commit_table import create_own_tables, read_commits, record_commit
from teatree.engine.duckdb.database import Database
from teatree.storage.dead_letters import list_dead_letters, write_dead_letter
from teatree.storage.ledger.segments import SCHEMA, Entry, Role, decode_segment, encode_segment
from teatree.storage.objects.local import LocalObjectStore
from teatree.storage.versions.chain import Chain

AT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
APP = AppCode("sales_goals", "1.2", "ab" * 32)
READ = VersionRead("budget", 7)

NAMES = st.sampled_from([ANONYMOUS, "anna", "import_job"])
TABLES = st.lists(st.sampled_from(["sales", "ünï 🌳", 'a"b', "x,y"]), unique=True).map(
    lambda found: tuple(sorted(found))
)
REFS = st.builds(ObjectRef, st.just("packs/1-a"), st.integers(0, 9), st.just("c"), st.integers(0, 9))
JSON = st.none() | st.recursive(
    st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda part: st.lists(part) | st.dictionaries(st.text(), part),
    max_leaves=5,
)
OUTCOMES = st.builds(
    Outcome,
    seq=st.integers(1, 2**63),
    request_id=st.text("abc-_19", min_size=1),
    function=st.sampled_from(["append", "set_goals"]),
    body_hash=st.binary(min_size=16, max_size=16),
    status=st.sampled_from(Status),
    at=st.just(AT),
    result=JSON,
    error=st.none() | st.just({"code": "bad_name", "message": "no", "where": None}),
    group=st.none() | st.just("g1"),
    pages=st.just(()) | st.just(({"ref": "pages/1", "rows": 3},)),
    effect=st.booleans(),
    tables=TABLES,
    sender=NAMES,
    traceparent=st.none() | st.just(TRACE),
    index=st.integers(0, 3),
    app=st.none() | st.just(APP),
    reads=st.just(()) | st.just((READ, VersionRead("other", 2**62))),
)
ENTRIES = st.lists(st.builds(Entry, OUTCOMES, st.sampled_from(Role), st.none() | st.integers(1, 2**63)), max_size=12)
PLAIN = Outcome(1, "r1", "append", bytes(16), Status.DONE, AT)
MANIFEST = Manifest(
    model="sales",
    goal_model_id="9f867857-e157-5993-b946-94827147e301",
    version=3,
    write_id="b" * 16,
    parent_write_id="a" * 16,
    kind=ManifestKind.BATCH,
    epoch=1,
    state=ModelState.ACTIVE,
    at=AT,
    log_at=AT,
    offset=30,
    stream=StreamStamp("REQUESTS", "2026-01-01T00:00:00Z"),
    content_version=3,
    content_write_id="b" * 16,
    user_version=3,
    last_effect_seq=30,
    announced_version=2,
)
EXTENT = Extent("models/m/packs/1-a", 8, 100, "c")
COLUMNS = Schema((Field("id", parse_dtype("BIGINT"), nullable=False), Field("n", parse_dtype("INTEGER"), default="1")))
BLOCKS = st.just(FileLayout(12_288, 262_144, 0, EXTENT, (EXTENT,), ("models/m",)))
PARTS = st.builds(PartFiles, st.tuples(st.builds(ContentPart, REFS, st.none() | st.just("sales"))))
MANIFESTS = st.builds(
    attrs.evolve,
    st.just(MANIFEST),
    incarnation=st.builds(Incarnation, st.integers(0, 9), st.integers(0, 9)),
    fork_of=st.none() | st.just(ForkPoint("plan", "id", 4)),
    options=st.builds(ModelOptions, app=st.none() | st.just("sales_goals"), limits=st.just({}) | st.just({"rows": 1})),
    content=st.none() | BLOCKS | PARTS,
    tables=st.just(()) | st.builds(lambda rows: (TableEntry("sales", COLUMNS, rows, ("id",), 3),), st.integers(0, 9)),
    pack=st.none() | REFS,
    outcomes=st.none() | REFS,
    ledger=st.builds(LedgerRef, st.just(()) | st.tuples(REFS), st.just(()) | st.just((2, 3)), st.integers(0, 30)),
    changed_tables=TABLES,
    app=st.none() | st.just(APP),
    senders=st.just(()) | st.just(("anna", "import_job")),
    traceparents=st.just(()) | st.just((TRACE,)),
    step_us=st.dictionaries(st.sampled_from(["apply", "wait", "ship.pack"]), st.integers(0, 2**40)),
    writer=st.just({}) | st.just({"host": "test"}),
)


def columns_of(segment: bytes) -> list[str]:
    """Return the columns of a segment."""
    return list(pa.ipc.open_file(segment).schema.names)


def empty_members(value: Any, path: str = "") -> list[str]:
    """Return the paths of members that are null or empty."""
    if isinstance(value, dict):
        return [path] * (not value) + [p for k, v in value.items() for p in empty_members(v, f"{path}.{k}")]
    if isinstance(value, list):
        return [path] * (not value) + [p for i, v in enumerate(value) for p in empty_members(v, f"{path}[{i}]")]
    return [path] * (value is None)


class TestSegments:
    @given(ENTRIES)
    @example([Entry(PLAIN)])
    @settings(max_examples=60, deadline=None)
    def test_round_trip(self, entries: list[Entry]) -> None:
        """Every member of every outcome is read as it was written, and a column without a value is absent."""
        body = encode_segment(entries)
        assert decode_segment(body, "s") == entries
        for name, column in zip(columns_of(body), pa.ipc.open_file(body).read_all().columns, strict=True):
            assert column.null_count < len(column), name

    def test_unused_members_cost_nothing(self) -> None:
        """What a plain request does not have takes no column."""
        body = encode_segment([Entry(PLAIN)])
        assert columns_of(body) == ["seq", "request_id", "function", "body_hash", "status", "at", "effect"]

    def test_what_many_requests_share_is_stored_once(self) -> None:
        """In a long segment a text that all rows have is a dictionary's; rows are read as they were written."""
        entries = [
            Entry(attrs.evolve(PLAIN, seq=n, request_id=f"r{n}", sender="anna", tables=("t",))) for n in range(999)
        ]
        body = encode_segment(entries)
        assert decode_segment(body, "s") == entries
        shared = {field.name for field in pa.ipc.open_file(body).schema if pa.types.is_dictionary(field.type)}
        assert shared == {"function", "status", "sender", "tables"}
        assert len(body) < len(
            encode_segment([*entries[1:], Entry(attrs.evolve(PLAIN, tables=("t", "u"), sender="bo"))])
        )

    def test_a_newer_writers_segment_is_read(self) -> None:
        """Columns that this release does not know are ignored, and repeated values may be a dictionary's."""
        table = pa.ipc.open_file(encode_segment([Entry(PLAIN), Entry(PLAIN)])).read_all()
        place = table.schema.get_field_index("function")
        table = table.set_column(place, "function", table.column("function").dictionary_encode())
        sink = io.BytesIO()
        with pa.ipc.new_file(sink, table.append_column("mood", pa.array(["a", "b"])).schema) as writer:
            writer.write_table(table.append_column("mood", pa.array(["a", "b"])))
        assert decode_segment(sink.getvalue(), "s") == [Entry(PLAIN), Entry(PLAIN)]

    def test_every_member_has_a_column(self) -> None:
        """An outcome's members and the columns of a segment are the same."""
        members = {a.name for a in attrs.fields(Outcome)} | {a.name for a in attrs.fields(Entry)} - {"outcome"}
        assert members == set(SCHEMA.names)


class TestManifests:
    @given(MANIFESTS)
    @example(MANIFEST)
    @settings(max_examples=60, deadline=None)
    def test_round_trip(self, manifest: Manifest) -> None:
        """Every member is read as it was written; none is null or empty in the object."""
        body = manifest.to_json()
        assert read_manifest(body, "m") == manifest
        assert empty_members(orjson.loads(body)) == []
        stub = stub_of(manifest)
        assert read_entry(stub.to_json(), "m") == stub
        assert empty_members(orjson.loads(stub.to_json())) == []

    def test_absence_is_short(self) -> None:
        """A manifest holds what has a value, and its tags, which decide how it is read."""
        assert set(orjson.loads(MANIFEST.to_json())) == {
            "model", "goal_model_id", "version", "write_id", "parent_write_id", "kind", "epoch", "state", "at",
            "log_at", "offset", "stream", "content_version", "content_write_id", "user_version", "last_effect_seq",
            "announced_version", "format", "checksum",
        }  # fmt: skip
        assert orjson.loads(stub_of(MANIFEST).to_json())["stub"] is True

    def test_a_newer_writers_manifest_is_read(self) -> None:
        """Members that this release does not know are ignored; the app's code, which nothing sets yet, is read."""
        members = {**orjson.loads(attrs.evolve(MANIFEST, app=APP).to_json()), "mood": "good"}
        assert read_manifest(sealed(members), "m") == attrs.evolve(MANIFEST, app=APP)

    def test_other_content_is_refused_by_its_kind(self) -> None:
        """A version of another engine's content is not damaged: this release is too old for it."""
        members = {**orjson.loads(MANIFEST.to_json()), "content": {"kind": "columns", "columns": []}}
        with pytest.raises(CorruptError, match="as 'columns'; this release reads 'blocks' and 'parts'") as refused:
            read_manifest(sealed(members), "m")
        assert refused.value.hint == "Use a newer release of teatree."


def sealed(members: dict[str, Any]) -> bytes:
    """Return the bytes of a manifest with these members."""
    members = {name: value for name, value in members.items() if name != "checksum"}
    return dump_json({**members, "checksum": blake3(dump_json(members)).hexdigest()})


class TestOthers:
    @given(OUTCOMES)
    def test_a_notice_has_what_its_outcome_has(self, outcome: Outcome) -> None:
        """A notice leaves out what has no value, and the sender `_`."""
        have = {"tables": outcome.tables or None, "app": outcome.app, "reads": outcome.reads or None}
        notice = notice_about(outcome, Kind.DONE, "sales", AT, **have)
        members = orjson.loads(notice.to_json())
        assert None not in members.values()
        assert members.get("sender", ANONYMOUS) == outcome.sender
        assert members.get("index", 0) == outcome.index
        assert tuple(members.get("tables", ())) == outcome.tables
        assert members.get("app") == (None if outcome.app is None else attrs.asdict(outcome.app))
        assert members.get("reads", []) == [attrs.asdict(read) for read in outcome.reads]

    def test_a_commit_keeps_its_index(self, tmp_path: Path) -> None:
        """A commit in a message, which nothing makes yet, is read back; without an index a message is complete."""
        database = Database(tmp_path / "model.duckdb", LimitSettings())
        commits = [
            Commit(2, "a", 7, AT, 7, ("t",), b"segment"),
            Commit(3, "b", 8, AT, 7, (), b"segment", dropped=True, index=4),
        ]
        with database.transaction():
            create_own_tables(database, Identity("m", "id", StreamStamp("REQUESTS", ""), 1, ModelOptions()))
            for commit in commits:
                record_commit(database, commit, None)
        assert read_commits(database) == commits
        database.close()

    def test_a_dead_letter_keeps_its_request(self, tmp_path: Path) -> None:
        """A request that was set aside keeps its sender, its trace and its place in its message."""
        chain = Chain(LocalObjectStore(tmp_path), "t", "m")
        plain = Request("m", "append", 1, AT, "r1", b"{}")
        traced = attrs.evolve(plain, seq=2, request_id="r2", sender="anna", traceparent=TRACE, index=3)
        for request in (plain, traced):
            write_dead_letter(chain, request, 3)
        first, second = list_dead_letters(chain)
        assert (first.sender, first.traceparent, first.index) == (ANONYMOUS, None, 0)
        assert (second.sender, second.traceparent, second.index) == ("anna", TRACE, 3)
        assert b"sender" not in chain.store.get(f"{chain.folder}/dead/{1:020d}.json")


class TestTraceparent:
    @given(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.integers(0, 255))
    def test_valid_ones_stay(self, trace_id: int, parent_id: int, flags: int) -> None:
        """Whatever version 00 allows is kept as it is."""
        text = f"00-{trace_id:032x}-{parent_id:016x}-{flags:02x}"
        assert read_traceparent(text) == text
        assert is_sampled(text) == bool(flags & 1)

    @given(st.text() | st.text("0123456789abcdef-", min_size=50, max_size=60))
    @example(TRACE.upper())
    @example(f"{TRACE}-")
    @example(f"{TRACE}\n")
    @example(TRACE.replace("00-", "ff-", 1))
    @example(TRACE.replace("4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32))
    @example(TRACE.replace("00f067aa0ba902b7", "0" * 16))
    def test_others_are_ignored(self, text: str) -> None:
        """What is not valid counts as no trace, as W3C asks for; it never raises."""
        found = read_traceparent(text)
        assert found is None or read_traceparent(found) == found

    @pytest.mark.parametrize(
        ("text", "found"),
        [
            (f"  {TRACE} ", TRACE),
            (TRACE.upper(), None),
            (f"{TRACE}-", None),
            (TRACE.replace("00-", "ff-", 1), None),
            (TRACE.replace("4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32), None),
            (TRACE.replace("00f067aa0ba902b7", "0" * 16), None),
            ("", None),
            (None, None),
            (f"cc-{TRACE[3:-2]}0b-what-the-future-has", TRACE),
            (f"cc-{TRACE[3:-2]}02", f"{TRACE[:-2]}00"),
            (f"cc-{TRACE[3:]}.what-the-future-has", None),
        ],
    )
    def test_forms(self, text: str | None, found: str | None) -> None:
        """Upper case, zero ids and more members are not valid; a later version is read as version 00."""
        assert read_traceparent(text) == found
