"""DuckDB's errors are translated to the group that decides what the caller does next."""

from __future__ import annotations

import shutil
from pathlib import Path

import duckdb
import pytest

from teatree.contracts.errors import Code, OperatorError, RequestError, RetryError
from teatree.engine.duckdb.errors import translate
from teatree.engine.errors import DamagedFileError, InvalidatedError

COMMIT = 'TransactionContext Error: Failed to commit: Could not write file "/d/model.duckdb.wal": '

OPEN = 'TransactionContext Error: Failed to commit: Cannot open file "/d/model.duckdb.wal": '
FAILED = 'Checkpoint failed for database "model". The database has been invalidated. Original error: '
AGAIN = 'Database "model" has been invalidated because checkpointing failed. Detach and reattach it. Original error: '
FATAL = "FATAL Error: Failed: database has been invalidated because of a previous fatal error. Original error: "
FULL = 'Could not write file "/d/model.duckdb": No space left on device'


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (f"{COMMIT}No space left on device", Code.DISK_FULL),
        (f"{COMMIT}File too large", Code.DISK_FULL),
        (f"{COMMIT}Input/output error", Code.UNAVAILABLE),
        ('IO Error: Could not write file "/d/model.duckdb": No space left on device', Code.DISK_FULL),
        (f"{OPEN}Read-only file system", Code.UNAVAILABLE),
        (f"{OPEN}Permission denied", Code.UNAVAILABLE),
        (f"{OPEN}Too many open files", Code.UNAVAILABLE),
        (f"{OPEN}Stale file handle", Code.UNAVAILABLE),
        (f"{OPEN}No space left on device", Code.DISK_FULL),
        (OPEN.replace("Cannot open", "Could not fsync") + "Input/output error", Code.UNAVAILABLE),
        (
            'TransactionContext Error: Failed to commit: Failed to create directory "/d/tmp": Read-only file system',
            Code.UNAVAILABLE,
        ),
    ],
)
def test_a_disk_that_refuses_is_tried_again(text: str, code: Code) -> None:
    """Also where the disk refused a COMMIT, which DuckDB raises as another class: it needs no operator."""
    error = translate(duckdb.Error(text))
    assert isinstance(error, RetryError)
    assert error.code is code


def test_a_sector_that_cannot_be_read_is_damage() -> None:
    """A file that the disk cannot read is damaged: it is quarantined, not retried."""
    text = 'IO Error: Could not read from file "/d/model.duckdb": Input/output error'
    assert isinstance(translate(duckdb.Error(text)), DamagedFileError)


def test_a_senders_value_is_no_fault_of_the_disk() -> None:
    """A key whose text looks like a disk error is refused as any other key."""
    text = 'Constraint Error: Duplicate key "id: Could not write: No space left" violates primary key constraint.'
    assert isinstance(translate(duckdb.Error(text)), RequestError)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (f"IO Error: {FAILED}{FULL}", Code.DISK_FULL),
        (f"IO Error: {AGAIN}{FULL}", Code.DISK_FULL),
        (f"{FATAL}{FULL}", Code.DISK_FULL),
        (f'IO Error: {FAILED}Cannot open file "/d/model.duckdb.wal": Read-only file system', Code.UNAVAILABLE),
        ('FATAL Error: Failed to create checkpoint because of error: Could not fsync file "x": I/O', Code.UNAVAILABLE),
        (f"Out of Memory Error: {FAILED}failed to allocate data of size 1.0 GiB", Code.OVER_LIMIT),
    ],
)
def test_an_invalidated_database_has_its_own_class(text: str, code: Code) -> None:
    """An invalidated database is not used again: its error has one class, whatever the cause."""
    error = translate(duckdb.Error(text))
    assert isinstance(error, InvalidatedError)
    assert error.code is code


def test_a_database_that_a_bug_of_duckdb_invalidated_is_not_retried() -> None:
    """An INTERNAL error would be raised again by the same statement: it ends the manager, which counts its crashes."""
    error = translate(duckdb.Error(f"{FATAL}INTERNAL Error: Attempted to access index 7 within vector of size 3"))
    assert isinstance(error, OperatorError)
    assert not isinstance(error, InvalidatedError)


def test_a_file_that_was_deleted_while_it_is_open_is_damage(tmp_path: Path) -> None:
    """A commit whose write-ahead log has no folder any more is not tried again: the file is restored."""
    folder = tmp_path / "rw"
    folder.mkdir()
    with duckdb.connect(folder / "model.duckdb") as con:
        con.execute("CREATE TABLE t (i INTEGER)")
        con.execute("CHECKPOINT")
        shutil.rmtree(folder)
        with pytest.raises(duckdb.Error) as caught:
            con.execute("INSERT INTO t VALUES (1)")
    error = translate(caught.value)
    assert isinstance(error, DamagedFileError)
    assert "was deleted" in error.message
