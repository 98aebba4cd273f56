"""A transaction that failed is never taken for committed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest

from teatree.contracts.errors import Code, OperatorError, RequestError, RetryError
from teatree.contracts.formats.manifest import ModelOptions, StreamStamp
from teatree.contracts.settings import LimitSettings
from teatree.engine.commits import Commit, Identity
from teatree.engine.duckdb.commit_table import create_own_tables, read_commits, record_commit
from teatree.engine.duckdb.database import Database


def commit(offset: int) -> Commit:
    """Return the row of a transaction."""
    return Commit(
        version=offset,
        write_id="0" * 16,
        offset=offset,
        log_at=datetime.now(UTC),
        last_effect_seq=offset,
        changed_tables=("t",),
        outcomes=b"",
    )


def insert(database: Database, value: int, row: Commit) -> None:
    """Insert a row in a separate transaction, the offset first."""
    with database.transaction():
        record_commit(database, row, 0)
        database.rows("INSERT INTO t VALUES (?)", (value,))


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """Return an open model file with one table, at offset 1."""
    with Database(tmp_path / "a lock on a block" / "model.duckdb", LimitSettings()) as opened:
        with opened.transaction():
            create_own_tables(opened, Identity("m", "id", StreamStamp("S", "now"), 1, ModelOptions()))
            opened.rows("CREATE TABLE t(id BIGINT PRIMARY KEY)")
            record_commit(opened, commit(1), 0)
        yield opened


def test_commit_after_an_error(database: Database) -> None:
    """DuckDB's COMMIT after an error returns success and rolls back: the offset, which did not change, shows it."""
    with database.transaction():
        record_commit(database, commit(2), 0)
        with pytest.raises(RequestError):
            database.rows("SELECT * FROM missing")
    assert read_commits(database)[-1].offset == 1
    assert database.rows("SELECT count(*) FROM t") == [(0,)]


def test_constraint_at_commit(database: Database) -> None:
    """A commit that the database refuses changes nothing, and the next transaction starts clean."""
    insert(database, 1, commit(2))
    with pytest.raises(RequestError) as refused:
        insert(database, 1, commit(3))
    assert refused.value.code is Code.CONSTRAINT
    assert read_commits(database)[-1].offset == 2
    insert(database, 2, commit(3))
    assert read_commits(database)[-1].offset == 3


def test_killed_inside_a_transaction(database: Database) -> None:
    """An exception of any kind inside a transaction rolls it back: also those that end a thread."""

    def interrupted() -> None:
        with database.transaction():
            record_commit(database, commit(2), 0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert read_commits(database)[-1].offset == 1
    insert(database, 1, commit(2))
    assert read_commits(database)[-1].offset == 2


def test_one_process(database: Database) -> None:
    """Opening a file that is open elsewhere is `busy`; a damaged one is `corrupt`, whatever its path contains."""
    database.checkpoint()
    with pytest.raises(duckdb.Error, match="already"):
        duckdb.connect(str(database.path))
    database.close()
    with database.path.open("r+b") as file:
        file.seek(40)
        file.write(b"\xff")
    with pytest.raises(OperatorError) as damaged:
        Database(database.path, LimitSettings())
    assert damaged.value.code is Code.CORRUPT
    assert not isinstance(damaged.value, RetryError)
