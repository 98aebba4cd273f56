"""Functions behind the queue that read another model: what they read is recorded, its faults end their request."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import teatree
from installed_apps import forget, write_app
from one_writer import OneWriter, Sent
from teatree.contracts.formats.notices import Outcome, Status
from teatree.contracts.formats.provenance import VersionRead
from teatree.contracts.settings import LimitSettings, NatsSettings, Settings, StoreSettings
from teatree.storage.ledger.segments import read_segment
from teatree.storage.versions.chain import Chain

SOURCE = '''
from contextlib import suppress
from teatree import App, Dataset, Read, Write
app = App("joins")

@app.mutation
def take(db: Write, model: str = "list", version: int | None = None) -> int:
    """Take prices from another model."""
    prices = db.other(model, version).sql("SELECT id, price FROM prices")
    db.other(model, version).tables()
    return db.execute("INSERT INTO sales SELECT id, price FROM p", tables={"p": prices})

@app.query
def price(db: Read, version: int | None = None) -> Dataset:
    """Return a price of another model."""
    return db.other("list", version).table("prices")

@app.mutation(time_ms_max=300)
def slow(db: Write, again: bool = False) -> None:
    """Read another model for too long."""
    other = db.other("list")
    with suppress(Exception if again else ()):
        other.sql("SELECT count(*) FROM range(100_000_000) a, range(1_000_000) b WHERE a.range % 7 = b.range")
    db.execute("INSERT INTO sales SELECT range, 1 FROM range(3_000_000_000)")

@app.mutation
def survive(db: Write) -> str:
    """Continue after an error of the other model, which has no effect on this one."""
    db.append("sales", [{"id": 1, "price": 1}])
    try:
        db.other("list").sql("SELECT error('no') FROM prices")
    except Exception as e:
        return type(e).__name__
'''
SALES = {"table": "sales", "columns": [{"name": "id", "type": "BIGINT"}, {"name": "price", "type": "BIGINT"}]}


@pytest.fixture(scope="module", autouse=True)
def joins_app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let the app `joins` be found."""
    folder = tmp_path_factory.mktemp("apps")
    write_app(folder, "joins", SOURCE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield
    forget("joins")


@pytest.fixture
def model(tmp_path: Path) -> Iterator[OneWriter]:
    """Return a model with the app, and another model `list` of two versions in the same store."""
    settings = Settings(store=StoreSettings(url=(tmp_path / "store").as_uri()), nats=NatsSettings(prefix="t"))
    with teatree.open(tmp_path / "list.duckdb", settings=settings) as other:
        for price in (5, 7):
            other.sql(f"CREATE OR REPLACE TABLE prices AS SELECT 1 AS id, {price} AS price FROM range(3)")
            other.publish()
    limits = LimitSettings(load_retry_ms_max=0, stuck_ms_max=3_000_000)
    found = OneWriter(tmp_path, [SALES], limits, app="joins")
    yield found
    found.check_good_rows()
    found.close()


def call(function: str, /, **arguments: Any) -> Sent:
    """Return a request."""
    return Sent(function, arguments)


def error(outcome: Outcome) -> tuple[str, str]:
    """Return the status and the code of a request that was not done."""
    assert outcome.error is not None
    return str(outcome.status), outcome.error["code"]


def test_the_version_that_was_read_is_in_the_outcome(model: OneWriter) -> None:
    """The newest one, or the one that was named, of mutations and queries; those that read none name none."""
    take, first, queried, plain = model.apply(
        call("take"), call("take", version=1), call("price"), Sent("append", {"table": "sales", "rows": []})
    )
    assert (take.status, take.result, take.reads) == (Status.DONE, 3, (VersionRead("list", 2),))
    assert first.reads == (VersionRead("list", 1),)
    assert (queried.status, queried.reads) == (Status.DONE, (VersionRead("list", 2),))
    assert plain.reads == ()
    newest = model.chain.newest()
    assert newest is not None
    kept = read_segment(model.chain.store, model.chain.folder, newest)
    assert [entry.outcome.reads for entry in kept] == [take.reads, first.reads, queried.reads, ()]
    assert model.rows("SELECT DISTINCT price FROM sales ORDER BY 1") == [{"price": 5}, {"price": 7}]


def test_what_cannot_be_read_ends_its_request_only(model: OneWriter, tmp_path: Path) -> None:
    """An unknown model or version and a damaged one are refused by name, the neighbours are done."""
    assert error(model.between(call("take", model="nosuch"))) == ("rejected", "unknown_model")
    assert error(model.between(call("take", model="No"))) == ("rejected", "bad_name")
    assert error(model.between(call("take", version=3))) == ("rejected", "unknown_version")
    model.apply(call("take"))
    listed = Chain(model.chain.store, "t", "list")
    (tmp_path / "store" / listed.manifest_key(2)).write_bytes(b"{}")
    assert error(model.between(call("price"))) == ("rejected", "bad_source")
    assert model.between(call("price", version=1)).status is Status.DONE


def test_the_time_of_a_request_holds_while_it_reads_another_model(model: OneWriter) -> None:
    """The interrupt reaches the other model's query, also that of a function which ignores it."""
    for again in (False, True):
        assert error(model.between(call("slow", again=again))) == ("failed", "timed_out")
    assert model.rows("SELECT count(*) AS n FROM sales") == [{"n": 0}]


def test_an_error_of_another_model_can_be_caught(model: OneWriter) -> None:
    """A query that failed on the other version leaves the function's own transaction as it was."""
    outcome = model.between(call("survive"))
    assert (outcome.status, outcome.result) == (Status.DONE, "RequestError")
    assert model.rows("SELECT count(*) AS n FROM sales") == [{"n": 1}]
