"""What a version records about its requests: who sent them, their traces, the tables they wrote; and its steps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from one_writer import OneWriter, Sent
from teatree.client.notice import read_notice
from teatree.contracts.errors import Code, RetryError
from teatree.contracts.formats.manifest import Manifest
from teatree.contracts.formats.notices import Status
from teatree.contracts.settings import LimitSettings
from teatree.engine.publish.announce import Announcer
from teatree.engine.publish.prepared import TRACEPARENTS_MAX, Author
from teatree.engine.publish.shipping import ship
from teatree.engine.writer import Writer
from teatree.functions.registry import built_in_functions
from teatree.messaging.subjects import Subjects
from teatree.storage.ledger.segments import read_segment

TABLES = [
    {"table": "sales", "columns": [{"name": "id", "type": "BIGINT"}], "primary_key": ["id"]},
    {"table": "notes", "columns": [{"name": "id", "type": "BIGINT"}]},
]
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
STEPS = ["apply", "wait", "capture.checkpoint", "capture.pack", "ship.pack", "ship.segment"]


@pytest.fixture
def model(tmp_path: Path) -> Iterator[OneWriter]:
    """Return a model with two tables."""
    made = OneWriter(tmp_path, TABLES)
    yield made
    made.close()


def append(table: str, *ids: int, sender: str = "_", **headers: str) -> Sent:
    """Return an append of rows."""
    return Sent("append", {"table": table, "rows": [{"id": n} for n in ids]}, headers, sender)


def newest(model: OneWriter) -> Manifest:
    """Return the newest manifest as the store holds it."""
    found = model.chain.newest()
    assert found is not None
    return found


def test_tables_that_each_request_of_a_batch_wrote(model: OneWriter) -> None:
    """Of appends that share an INSERT, of statements between them, and of those that are refused or write nothing."""
    outcomes = model.apply(
        append("sales", 1),
        append("notes", 1),
        append("sales", 1),
        append("sales", 2),
        append("notes"),
        Sent("sql", {"statement": "UPDATE notes SET id = 2"}),
        Sent("query", {"sql": "FROM sales"}),
        Sent("create_table", {"table": "third", "columns": [{"name": "id", "type": "BIGINT"}]}),
        append("third", 1),
        Sent("drop_table", {"table": "third"}),
        Sent("nothing"),
    )
    assert [(o.status, o.tables) for o in outcomes] == [
        (Status.DONE, ("sales",)),
        (Status.DONE, ("notes",)),
        (Status.REJECTED, ()),
        (Status.DONE, ("sales",)),
        (Status.DONE, ()),
        (Status.DONE, ("notes",)),
        (Status.DONE, ()),
        (Status.DONE, ("third",)),
        (Status.DONE, ("third",)),
        (Status.DONE, ("third",)),
        (Status.REJECTED, ()),
    ]
    stored = read_segment(model.chain.store, model.chain.folder, newest(model))
    assert [entry.outcome for entry in stored] == outcomes


def test_functions_that_write_several_tables(model: OneWriter) -> None:
    """`create_model` wrote the tables that it made, `restore` those that it changed back."""
    created = read_segment(model.chain.store, model.chain.folder, model.chain.get(2))
    assert created[0].outcome.tables == ("good", "notes", "sales")
    model.apply(append("sales", 1), append("notes", 1))
    (restored,) = model.apply(Sent("restore", {"version": 2}))
    assert (restored.status, restored.tables) == (Status.DONE, ("notes", "sales"))


def test_senders_and_traces_of_a_version(model: OneWriter) -> None:
    """A manifest names who sent its requests and some traces, sampled ones first; a version has its own only."""
    unsampled = [f"00-{n:032x}-{n:016x}-00" for n in range(1, TRACEPARENTS_MAX + 5)]
    sent = [append("notes", n, traceparent=trace) for n, trace in enumerate(unsampled)]
    model.apply(*sent, append("sales", 1, sender="bo", traceparent=TRACE), append("sales", 2, sender="anna"))
    manifest = newest(model)
    assert manifest.senders == ("anna", "bo")
    assert manifest.traceparents == (TRACE, *unsampled[: TRACEPARENTS_MAX - 1])
    model.apply(append("sales", 3))
    assert (newest(model).senders, newest(model).traceparents) == ((), ())


def test_an_invalid_trace_is_ignored(model: OneWriter) -> None:
    """A request with a trace that is not valid is applied like one without."""
    (outcome,) = model.apply(append("sales", 1, traceparent="00-not-a-trace"))
    assert (outcome.status, outcome.traceparent) == (Status.DONE, None)


def test_commits_that_were_not_shipped_keep_it(model: OneWriter) -> None:
    """The next writer publishes what a killed one has committed, with senders, traces and tables."""
    requests = [model._request(append("sales", 1, sender="anna", traceparent=TRACE))]
    model.writer.apply(requests)
    model.writer.close()
    writer = Writer(model.writer.context, Author(model.writer.manifest.stream, {}))
    prepared = writer.take_over(newest(model))
    assert prepared is not None
    manifest = ship(prepared, writer.context).manifest
    (entry,) = read_segment(model.chain.store, model.chain.folder, manifest)
    assert (entry.outcome.sender, entry.outcome.traceparent, entry.outcome.tables) == ("anna", TRACE, ("sales",))
    assert (manifest.senders, manifest.traceparents) == (("anna",), (TRACE,))
    fence = model.chain.get(manifest.version - 1)
    assert (fence.senders, fence.traceparents, fence.step_us) == ((), (), {})
    writer.close()


def test_notices_name_sender_tables_and_trace(model: OneWriter) -> None:
    """An outcome's notice has the sender and the tables; all notices about a request have its trace as a header."""
    model.apply(
        append("sales", 1, sender="anna", traceparent=TRACE),
        Sent("query", {"sql": "FROM sales"}, {"traceparent": TRACE}),
        append("sales", 2),
    )
    announcer = Announcer(model.chain, Subjects("t"), LimitSettings(), built_in_functions(), lambda: 1_000_000)
    entries = read_segment(model.chain.store, model.chain.folder, newest(model))
    messages = announcer.messages(newest(model), entries, late=True)
    first, page, read, plain = (read_notice(subject, headers, body) for subject, body, headers in messages)
    assert (first.sender, first.tables, first.traceparent) == ("anna", ("sales",), TRACE)
    assert [n.traceparent for n in (page, read, plain)] == [TRACE, TRACE, None]
    assert not {"sender", "tables", "index", "app", "reads"} & json.loads(messages[2][1]).keys()
    assert "sender" not in json.loads(messages[3][1])


def test_steps_of_a_version(model: OneWriter) -> None:
    """A manifest has the time of each step, in order; a version without a file has those that it passed."""
    model.apply(append("sales", 1))
    steps = newest(model).step_us
    assert list(steps) == STEPS
    assert all(us >= 0 for us in steps.values())
    assert steps["apply"] > 0
    model.apply(Sent("drop_model"))
    assert list(newest(model).step_us) == ["apply", "wait", "ship.segment"]


def test_a_lost_reply_leaves_one_manifest(model: OneWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version that is shipped again is continued with the manifest that the store has, though times differ."""
    prepared = model.writer.capture(model.writer.apply([model._request(append("sales", 1))]), 0)
    store, put = model.chain.store, model.chain.store.put_if_absent

    def lose(key: str, body: bytes) -> bool:
        put(key, body)
        raise RetryError(Code.UNAVAILABLE, "The reply was lost.")

    with monkeypatch.context() as lossy:
        lossy.setattr(store, "put_if_absent", lose)
        with pytest.raises(RetryError):
            ship(prepared, model.writer.context)
    slower = attrs.evolve(prepared, steps=prepared.steps.then("ship.pack"))
    shipped = ship(slower, model.writer.context)
    assert shipped.manifest == newest(model)
    assert shipped.manifest.to_json() == store.get(model.chain.manifest_key(shipped.manifest.version))
    model.writer.advance_base(shipped)
    model.apply(append("sales", 2))
    assert newest(model).version == shipped.manifest.version + 1
