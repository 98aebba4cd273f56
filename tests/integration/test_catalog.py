"""The catalog against a real PostgreSQL: models never go back to an older version, failures are recovered from."""

from __future__ import annotations

import os
import signal
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from attrs import evolve

from servers import TestServers
from teatree.contracts.errors import Code, OperatorError, RequestError, RetryError
from teatree.contracts.settings import PostgresSettings
from teatree.storage.catalog.catalog import RESULT_BYTES_MAX, STATEMENT_ROWS_MAX, Catalog
from teatree.storage.catalog.migrations.migrate import VERSION_TABLE, migrate
from teatree.storage.catalog.postgres import Postgres
from teatree.storage.catalog.rows import ContentKind, ContentRow, ModelColumns, RequestRow, RequestState, VersionRow

MODEL = uuid.UUID(int=1)
NOW = datetime(2026, 3, 4, 5, 6, 7, 891011, tzinfo=UTC)


@pytest.fixture
def postgres(postgres_server: PostgresSettings) -> Postgres:
    """Return a migrated database."""
    migrate(postgres_server)
    return Postgres(postgres_server)


@pytest.fixture
def catalog(postgres: Postgres) -> Catalog:
    """Return an empty catalog."""
    return Catalog(postgres)


def _columns(version: int, **changes: Any) -> ModelColumns:
    columns = ModelColumns(
        goal_model_id=MODEL,
        name="sales",
        engine="duckdb",
        lifecycle="active",
        version=version,
        applied_offset=version * 10,
        epoch=1,
        options={"engine": "duckdb"},
        tables=({"name": "sales", "rows": 3, "columns": []},),
        size_bytes=1_000,
        store_url="file:///store",
    )
    return evolve(columns, **changes)


def _version(number: int) -> VersionRow:
    return VersionRow(
        goal_model_id=MODEL,
        version=number,
        write_id=f"{number:016x}",
        kind="batch",
        epoch=1,
        applied_offset=number * 10,
        user_version=number,
        at=NOW,
        log_at=NOW,
        size_bytes=1_000,
        pack_bytes=10,
        requests=2,
        changed_tables=("sales", 'it\'s {a}, "b"'),
    )


def _content(version: int, checksum: str = "00") -> ContentRow:
    uri = f"file:///store/models/{MODEL}/archive/{version:020}/sales.parquet"
    return ContentRow(MODEL, version, ContentKind.PARQUET, uri, 3, 300, checksum, NOW, "sales")


def _request(number: int, state: RequestState = RequestState.DONE, **changes: Any) -> RequestRow:
    ended = state is not RequestState.STARTED
    row = RequestRow(
        goal_model_id=MODEL,
        request_id=f"r{number}",
        seq=number,
        function="append",
        state=state,
        accepted_at=NOW,
        version=1 if ended else None,
        result={"rows": number} if ended else None,
        finished_at=NOW if ended else None,
    )
    return evolve(row, **changes)


def test_a_chunk_is_read_as_it_was_written(catalog: Catalog) -> None:
    """Versions, objects and requests are read as they were recorded, with all their types."""
    rejected = _request(
        2, RequestState.REJECTED, result=None, error={"code": "not_null", "message": "…", "where": None}
    )
    grouped = _request(
        3, group_id="bulk", result=[1.5, "x", None], sender="anna", traceparent="00-1", tables=("a", "b")
    )
    catalog.record_versions(_columns(1), [_version(1)], [_content(1)], [_request(1), rejected, grouped])
    assert catalog.versions("sales") == [_version(1)]
    assert catalog.contents("sales") == [_content(1)]
    assert catalog.requests("sales") == [grouped, rejected, _request(1)]
    assert catalog.request("sales", "r2") == rejected
    found = catalog.model("sales")
    assert found is not None
    assert [found] == catalog.models()
    assert (found.version, found.state, found.tables[0]["rows"]) == (1, "active", 3)
    assert found.created_at.utcoffset() == timedelta(0)


def test_a_model_never_goes_back(catalog: Catalog) -> None:
    """A late write of an older version adds its rows and leaves the model where it is; repeating changes nothing."""
    catalog.record_versions(_columns(5, lifecycle="dropped"), [_version(5)], [], [_request(50)])
    for _ in range(2):
        catalog.record_versions(_columns(4), [_version(4)], [_content(4)], [_request(40)])
    found = catalog.model("sales")
    assert found is not None
    assert (found.version, found.applied_offset, found.lifecycle) == (5, 50, "dropped")
    assert [row.version for row in catalog.versions("sales")] == [5, 4]
    assert [row.request_id for row in catalog.requests("sales")] == ["r50", "r40"]


def test_a_name_belongs_to_one_installation(catalog: Catalog) -> None:
    """Two installations that share a database by mistake get an error instead of writing into each other's rows."""
    catalog.record_versions(_columns(1), [_version(1)])
    with pytest.raises(OperatorError) as caught:
        catalog.record_versions(_columns(2, goal_model_id=uuid.UUID(int=2)), [])
    assert caught.value.code == Code.WRONG_CONFIGURATION
    assert "TEATREE_PREFIX" in str(caught.value)


def test_the_end_of_a_request_is_never_overwritten(catalog: Catalog) -> None:
    """An outcome replaces `started`; nothing replaces an outcome, neither a late `started` nor another outcome."""
    catalog.record_versions(_columns(1), [_version(1)])
    catalog.record_requests([_request(1, RequestState.STARTED), _request(2, RequestState.STARTED)])
    assert [row.state for row in catalog.requests("sales")] == [RequestState.STARTED] * 2
    catalog.record_requests([_request(1)])
    catalog.record_requests([_request(1, RequestState.STARTED), _request(1, RequestState.FAILED, result=None)])
    assert catalog.request("sales", "r1") == _request(1)
    assert catalog.requests("sales", state=RequestState.STARTED) == [_request(2, RequestState.STARTED)]


def test_a_second_body_under_a_used_id_does_not_hide_the_first(catalog: Catalog) -> None:
    """In one chunk, too, the row of an id is that of the first request in the log."""
    refused = _request(1, RequestState.REJECTED, seq=7, result=None, error={"code": "request_id_reused"})
    started = _request(1, RequestState.STARTED)
    catalog.record_versions(_columns(1), [_version(1)], [], [refused, started, _request(1)])
    assert catalog.request("sales", "r1") == _request(1)


def test_an_archive_written_again_has_the_new_checksum(catalog: Catalog) -> None:
    """An object that was overwritten after a crash is described as it is now."""
    catalog.record_versions(_columns(1), [_version(1)], [_content(1)])
    catalog.record_contents([_content(1, "11"), _content(2)])
    assert [row.checksum for row in catalog.contents("sales", version=1)] == ["11"]
    catalog.forget_contents(MODEL, [_content(2).uri])
    assert catalog.contents("sales", kind=ContentKind.PARQUET) == [_content(1, "11")]


def test_text_that_postgresql_cannot_hold_fails_no_chunk(catalog: Catalog) -> None:
    """A NUL character is replaced, an over-long result left out: the chunk is recorded all the same."""
    rows = [
        _request(1, result={"a\0b": "\0", "kept": r"\u0000 \\u0000"}),
        _request(2, result="x" * RESULT_BYTES_MAX),
        _request(3, result={"big": 2**70, "float": 0.5}),
    ]
    catalog.record_versions(_columns(1), [_version(1)], [], rows)
    first, second, third = (catalog.request("sales", f"r{i}") for i in (1, 2, 3))
    assert first is not None
    assert first.result == {"a\ufffdb": "\ufffd", "kept": r"\u0000 \\u0000"}
    assert second is not None
    assert second.result == {"left_out_bytes": RESULT_BYTES_MAX + 2}
    assert third is not None
    assert third.result == {"big": str(2**70), "float": 0.5}


def test_a_chunk_is_recorded_whole_or_not_at_all(catalog: Catalog) -> None:
    """One row that PostgreSQL refuses leaves nothing of its chunk behind."""
    wrong = evolve(_content(1), bytes=2**63)
    with pytest.raises(OperatorError):
        catalog.record_versions(_columns(1), [_version(1)], [wrong], [_request(1)])
    assert catalog.models() == []


def test_ten_thousand_requests_take_few_statements(catalog: Catalog) -> None:
    """A chunk of any size is complete, with pages over it; old rows can be trimmed."""
    count = 2 * STATEMENT_ROWS_MAX + 1
    catalog.record_versions(_columns(1), [_version(1)], [], [_request(i) for i in range(1, count + 1)])
    seen = []
    before = None
    while page := catalog.requests("sales", before_seq=before, limit=3_000):
        seen += [row.seq for row in page]
        before = page[-1].seq
    assert seen == list(range(count, 0, -1))
    assert catalog.trim_requests(NOW) == 0
    assert catalog.trim_requests(NOW + timedelta(seconds=1), rows_max=100) == 100


def test_a_stopped_model_has_its_error_until_it_resumes(catalog: Catalog) -> None:
    """With an error a model counts as stopped, whatever its versions are; without it the state is as before."""
    error = {"code": "log_purged", "message": "…", "where": None}
    catalog.record_error(MODEL, "sales", error)
    catalog.record_versions(_columns(1), [_version(1)])
    found = catalog.model("sales")
    assert found is not None
    assert (found.state, found.lifecycle, found.error) == ("stopped", "active", error)
    catalog.record_error(MODEL, "sales", None)
    found = catalog.model("sales")
    assert found is not None
    assert (found.state, found.error) == ("active", None)


def test_a_models_condition_is_its_state(catalog: Catalog) -> None:
    """Damage counts more than another error, and that more than a wait; a version changes none of them."""

    def state() -> str:
        found = catalog.model("sales")
        assert found is not None
        return found.state

    catalog.record_waits(MODEL, "sales", "the disk is full\0")
    assert state() == "waits"
    catalog.record_error(MODEL, "sales", {"code": "log_purged", "message": "…", "where": None})
    assert state() == "stopped"
    catalog.record_damage(MODEL, "sales", {3: "corrupt: …\0", 12: "not_found: …"})
    assert state() == "damaged"
    catalog.record_versions(_columns(1), [_version(1)])
    catalog.record_error(MODEL, "sales", None)
    catalog.record_versions(_columns(2, lifecycle="dropped"), [_version(2)])
    assert state() == "dropped"
    catalog.clear()
    found = catalog.model("sales")
    assert found is not None
    assert (found.state, found.waits) == ("damaged", "the disk is full ")
    assert found.damage == {"3": "corrupt: …\ufffd", "12": "not_found: …"}
    catalog.record_error(MODEL, "sales", None)
    catalog.record_damage(MODEL, "sales", {})
    catalog.record_waits(MODEL, "sales", None)
    assert state() == "absent"
    for code in ("corrupt", "not_found"):
        catalog.record_error(MODEL, "sales", {"code": code, "message": "…", "where": None})
        assert state() == "damaged"


def test_a_cleared_catalog_can_be_written_again(catalog: Catalog) -> None:
    """After a clear the same chunks give the same catalog."""

    def write() -> list[Any]:
        catalog.record_versions(_columns(2), [_version(1), _version(2)], [_content(1)], [_request(1)])
        return [catalog.versions("sales"), catalog.contents("sales"), catalog.requests("sales")]

    first = write()
    catalog.clear()
    assert catalog.models() == []
    assert write() == first


def test_an_unknown_model_is_the_callers_error(catalog: Catalog) -> None:
    """A model that the catalog does not know is reported as unknown."""
    for read in (catalog.versions, catalog.requests, catalog.contents):
        with pytest.raises(RequestError) as caught:
            read("unknown")
        assert caught.value.code == Code.UNKNOWN_MODEL
    assert catalog.model("unknown") is None


def test_two_processes_migrate_at_once(postgres_server: PostgresSettings) -> None:
    """Of several processes that migrate at once one does the work; migrating again does nothing."""
    start = threading.Barrier(4)

    def run() -> None:
        start.wait()
        migrate(postgres_server)

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(run) for _ in range(4)]:
            done.result()
    migrate(postgres_server)
    assert Catalog(Postgres(postgres_server)).models() == []


def test_a_newer_releases_schema_is_left_alone(postgres_server: PostgresSettings) -> None:
    """An older release refuses a newer schema and changes nothing."""
    migrate(postgres_server)
    TestServers.run_sql(postgres_server, f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    with pytest.raises(OperatorError) as caught:
        migrate(postgres_server)
    assert caught.value.code == Code.WRONG_CONFIGURATION
    assert "9999" in str(caught.value)


def test_a_missing_schema_is_reported_as_such(postgres_server: PostgresSettings) -> None:
    """Without tables the error asks to migrate the schema."""
    with pytest.raises(OperatorError) as caught:
        Catalog(Postgres(postgres_server)).models()
    assert caught.value.code == Code.WRONG_CONFIGURATION
    assert "migrate" in str(caught.value)


def test_an_older_schema_is_reported_as_such(postgres_server: PostgresSettings, catalog: Catalog) -> None:
    """Where a column of this release does not exist yet, the error asks to migrate the schema."""
    catalog.record_versions(_columns(1), [_version(1)])
    TestServers.run_sql(postgres_server, "ALTER TABLE goal_model DROP COLUMN damage CASCADE")
    with pytest.raises(OperatorError) as caught:
        catalog.model("sales")
    assert caught.value.code == Code.WRONG_CONFIGURATION
    assert "migrate" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda s: evolve(s, password="hunter2-wrong"), Code.NOT_AUTHORIZED),
        (lambda s: evolve(s, url=s.url.replace("@/", "@/no_such_")), Code.WRONG_CONFIGURATION),
        (lambda s: evolve(s, url="postgresql://u:hunter2@[broken"), Code.WRONG_CONFIGURATION),
        (lambda s: evolve(s, url="postgresql://u:hunter2@127.0.0.1:1/db", password=None), Code.UNAVAILABLE),
        (lambda s: evolve(s, url="postgresql://u:hunter2@/db?host=/no/such/folder"), Code.UNAVAILABLE),
        (lambda s: evolve(s, url=None), Code.WRONG_CONFIGURATION),
    ],
)
def test_connection_errors_hold_no_password(
    postgres_server: PostgresSettings, change: Callable[[Any], PostgresSettings], code: Code
) -> None:
    """Each connection failure has its code; no password is in a message or its cause."""
    settings = change(postgres_server)
    for use in (Catalog(Postgres(settings)).models, lambda: migrate(settings)):
        with pytest.raises((OperatorError, RetryError)) as caught:
            use()
        assert caught.value.code == code
        assert isinstance(caught.value, RetryError) == (code == Code.UNAVAILABLE)
        text = f"{caught.value} {caught.value.__cause__}"
        assert "hunter2" not in text
        assert str(postgres_server.password) not in text


def test_a_connection_that_was_ended_is_replaced(postgres: Postgres, catalog: Catalog) -> None:
    """After the server closed all connections the next use, or at most the one after it, works again."""
    catalog.record_versions(_columns(1), [_version(1)])
    with Postgres(postgres.settings).transaction() as session:
        session.rows(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    with suppress(RetryError):
        catalog.models()
    assert len(catalog.models()) == 1


def _answers(catalog: Catalog) -> bool:
    try:
        catalog.models()
    except RetryError:
        return False
    return True


def test_a_server_killed_and_started_again_is_used_again(servers: TestServers, catalog: Catalog) -> None:
    """While PostgreSQL is unavailable every use fails soon; when it is back the same objects work again."""
    catalog.record_versions(_columns(1), [_version(1)])
    pid = servers.postgres().pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    try:
        while _answers(catalog):  # the backends outlive their parent for a moment
            time.sleep(0.01)
        for _ in range(2):
            with pytest.raises(RetryError) as caught:
                catalog.models()
            assert caught.value.code == Code.UNAVAILABLE
    finally:
        servers.postgres().start()
    assert [row.version for row in catalog.models()] == [1]


def test_a_frozen_server_does_not_block_its_callers(postgres_server: PostgresSettings) -> None:
    """A server that stops answering in the middle of a transaction costs a limited time, then an error."""
    migrate(postgres_server)
    postgres = Postgres(postgres_server, statement_ms_max=100, answer_margin_ms=400)
    begun = time.monotonic()
    with pytest.raises(RetryError) as caught, postgres.transaction() as session:  # noqa: PT012
        pid = session.rows("SELECT pg_backend_pid() AS pid")[0]["pid"]
        os.kill(pid, signal.SIGSTOP)
        try:
            session.rows("SELECT 1 AS one")
        finally:
            os.kill(pid, signal.SIGCONT)
    assert caught.value.code == Code.UNAVAILABLE
    assert time.monotonic() - begun < 30
