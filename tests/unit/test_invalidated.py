"""After DuckDB invalidates its open database, the same writer opens it again: nothing is lost or done twice."""

from __future__ import annotations

import json
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest

from one_writer import open_database
from published import LIMITS, PublishedModel
from teatree.contracts.errors import Code, RetryError
from teatree.contracts.formats.notices import Status
from teatree.contracts.formats.requests import Request
from teatree.contracts.settings import StoreSettings
from teatree.engine.duckdb.database import Database
from teatree.engine.errors import DamagedFileError, InvalidatedError

MANY = "INSERT INTO t SELECT range, (hash(range) >> 1)::BIGINT FROM range({}, {})"
FIRST, SECOND = MANY.format(0, 300_000), MANY.format(300_000, 500_000)


@pytest.fixture
def model(tmp_path: Path) -> Iterator[PublishedModel]:
    """Return a model with a table of 300,000 rows, some 3 MB."""
    with PublishedModel(StoreSettings(url=(tmp_path / "store").as_uri()), tmp_path) as made:
        made.create({"t": {"id": "BIGINT", "v": "BIGINT"}})
        made.sql(FIRST)
        yield made


def path_of(model: PublishedModel) -> Path:
    """Return the path of the read-write file."""
    return next((model.settings.data / model.name).rglob("model.duckdb"))


@contextmanager
def full_beyond(size_bytes: int) -> Iterator[None]:
    """Limit the size of this process's files, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def test_a_checkpoint_that_failed(model: PublishedModel) -> None:
    """A disk that is full for some checkpoints stops no request: the version is captured when there is space again."""
    applied = model.apply("sql", {"statement": SECOND})
    with full_beyond(path_of(model).stat().st_size):
        for _ in range(3):
            with pytest.raises(RetryError) as refused:
                model.writer.capture(applied, 1)
            assert refused.value.code is Code.DISK_FULL
    manifest = model.publish(applied)
    assert {table.name: table.rows for table in manifest.tables} == {"t": 500_000}
    assert model.sql(MANY.format(500_000, 500_001)).tables[0].rows == 500_001


def test_a_checkpoint_over_the_memory(model: PublishedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint that does not fit into the model's memory is repeated with more memory, in the same process."""
    applied = model.apply("sql", {"statement": SECOND})
    database = open_database(model.writer)

    def refuse() -> None:
        raise InvalidatedError(Code.OVER_LIMIT, "failed to allocate data of size 1.0 GiB")

    monkeypatch.setattr(database, "checkpoint", refuse)
    with pytest.raises(InvalidatedError):
        model.writer.capture(applied, 1)
    assert model.publish(applied).tables[0].rows == 500_000


class _LosingDatabase(Database):
    """A database that DuckDB invalidates in a COMMIT, after or before it is on disk."""

    lose: bool | None = None
    """Whether the next COMMIT reaches the disk; None: it succeeds."""

    def rows(self, sql: str, parameters: object = ()) -> list[tuple[object, ...]]:
        if sql == "COMMIT" and self.lose is not None:
            super().rows("COMMIT" if self.lose else "ROLLBACK")
            raise InvalidatedError(Code.UNAVAILABLE, "The write-ahead log could not be written.")
        return super().rows(sql, parameters)  # type: ignore[arg-type]


@pytest.mark.parametrize("reached", [True, False])
def test_a_commit_that_failed(model: PublishedModel, *, reached: bool) -> None:
    """A COMMIT that may or may not be on disk takes effect once, with its outcome."""
    database = open_database(model.writer)
    database.__class__ = _LosingDatabase
    database.lose = reached  # type: ignore[attr-defined]
    seq = model.writer.applied_position.seq + 1
    batch = [
        Request(model.name, "append", seq + i, datetime.now(UTC), f"r{i}", b'{"table": "t", "rows": [{"id": -1}]}')
        for i in range(2)
    ]
    with pytest.raises(InvalidatedError):
        model.writer.apply(batch)
    rest = model.writer.rest_of(batch)
    assert rest == ([] if reached else batch)
    applied = model.writer.apply(rest)
    assert [entry.outcome.request_id for entry in applied.entries] == ["r0", "r1"]
    assert applied.changed_tables == {"t"}
    assert model.publish(applied).tables[0].rows == 300_002
    assert set(model.writer.ledger.find(["r0", "r1"])) == {"r0", "r1"}


def test_a_file_that_lost_its_log(model: PublishedModel) -> None:
    """A file without a committed transaction is damaged: the next manager restores another."""
    applied = model.apply("sql", {"statement": SECOND})
    path = path_of(model)
    with full_beyond(path.stat().st_size), pytest.raises(RetryError):
        model.writer.capture(applied, 1)
    path.with_name("model.duckdb.wal").unlink()
    with pytest.raises(DamagedFileError):
        model.writer.capture(applied, 1)


def test_taking_over_on_a_full_disk(tmp_path: Path) -> None:
    """A take-over on a full disk is retried in the same process, with one fence."""
    store = StoreSettings(url=(tmp_path / "store").as_uri())
    with PublishedModel(store, tmp_path) as made:
        made.create({"t": {"id": "BIGINT", "v": "BIGINT"}})
        made.sql(FIRST)
        made.apply("sql", {"statement": SECOND})
        size_bytes, path = path_of(made).stat().st_size, made.settings.data
        newest = made.chain.newest()
    writer = made.writer
    with full_beyond(size_bytes):
        for _ in range(2):
            with pytest.raises(RetryError):
                writer.take_over(made.chain.newest())
    prepared = writer.take_over(made.chain.newest())
    assert prepared is not None
    assert newest is not None
    assert prepared.manifest.version == newest.version + 1  # its fence holds
    assert prepared.manifest.tables[0].rows == 500_000
    writer.close()
    assert path.exists()


def test_a_disk_that_refuses_to_open_damages_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that cannot be opened since the disk is read-only is not quarantined: opening it is retried."""
    path = tmp_path / "model.duckdb"
    Database(path, LIMITS).close()

    def refuse(*_: object, **__: object) -> None:
        raise duckdb.IOException(f'IO Error: Cannot open file "{path}": Read-only file system')

    monkeypatch.setattr("teatree.engine.duckdb.database._open", refuse)
    with pytest.raises(RetryError) as refused:
        Database(path, LIMITS)
    assert refused.value.code is Code.UNAVAILABLE


@pytest.mark.parametrize("function", ["sql", "query"])
def test_more_than_can_be_allocated(model: PublishedModel, function: str) -> None:
    """A request that needs more than any memory is `over_limit`, in the same process, whatever error DuckDB raises."""
    array = "(CASE WHEN range > 9 THEN NULL END)::INTEGER[100000][100000][100000]"
    select = f"SELECT range, length({array}::VARCHAR) FROM range(3)"
    args = {"sql": select} if function == "query" else {"statement": f"INSERT INTO t {select}"}
    seq = model.writer.applied_position.seq + 1
    request = Request(model.name, function, seq, datetime.now(UTC), "huge", json.dumps(args).encode())
    with pytest.raises(InvalidatedError):
        model.writer.apply([request])
    (entry,) = model.writer.apply(model.writer.rest_of([request])).entries
    assert entry.outcome.status is Status.FAILED
    assert (entry.outcome.error or {})["code"] == Code.OVER_LIMIT
