"""What DuckDB raises is told in the group of what its hearer does next."""

from __future__ import annotations

import duckdb
import pytest

from teatree.contracts.errors import Code, OperatorError, RequestError, RetryError
from teatree.engine.duckdb_errors import DamagedFileError, InvalidatedError, translate

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
    """Also where the disk refused a COMMIT, which DuckDB tells in another class: no operator is called."""
    error = translate(duckdb.Error(text))
    assert isinstance(error, RetryError)
    assert error.code is code


def test_a_sector_that_cannot_be_read_is_damage() -> None:
    """What the disk cannot read is as good as gone: the file is put aside, and nobody waits for it."""
    text = 'IO Error: Could not read from file "/d/model.duckdb": Input/output error'
    assert isinstance(translate(duckdb.Error(text)), DamagedFileError)


def test_words_of_a_sender_are_no_fault_of_the_disk() -> None:
    """A key that reads like a disk's complaint is refused as any other key."""
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
def test_a_database_that_was_given_up_is_a_class_of_its_own(text: str, code: Code) -> None:
    """What DuckDB invalidated is never asked again: its error says so whatever began it."""
    error = translate(duckdb.Error(text))
    assert isinstance(error, InvalidatedError)
    assert error.code is code


def test_a_database_that_a_fault_of_duckdb_gave_up_is_not_tried_again() -> None:
    """An INTERNAL error would come again with the same statement: it ends the manager, which counts its crashes."""
    error = translate(duckdb.Error(f"{FATAL}INTERNAL Error: Attempted to access index 7 within vector of size 3"))
    assert isinstance(error, OperatorError)
    assert not isinstance(error, InvalidatedError)
